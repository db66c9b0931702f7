"use strict";
(() => {
  const GRIP = 24; // pixels beside the border that still move it, in a picture that is zoomed
  const LARGEST = 16;

  const make = (name, className, parent) => {
    const element = document.createElement(name);
    element.className = className;
    parent.append(element);
    return element;
  };
  const within = (value, low, high) => Math.min(high, Math.max(low, value));

  // Tables: a heading becomes a button; numbers fall first, texts rise first, empty cells stay last.
  const sortable = (table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    const { compare } = new Intl.Collator("en", { numeric: true });
    const order = (column, numeric, sign) => (a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]];
      if (!numeric) return sign * compare(x.textContent, y.textContent);
      const [p, q] = [x.dataset.value, y.dataset.value].map((v) => (v === "inf" ? Infinity : v && Number(v)));
      if (p === undefined || q === undefined) return (p === undefined) - (q === undefined);
      return p === q ? 0 : sign * (p < q ? -1 : 1);
    };
    headings.forEach((heading, column) => {
      const numeric = heading.classList.contains("number");
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const now = heading.getAttribute("aria-sort");
        const rising = now ? now === "descending" : !numeric;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
        body.append(...rows.sort(order(column, numeric, rising ? 1 : -1)));
      });
    });
  };

  // An example: two of its pictures, one over the other up to a border that moves.
  const comparable = (example) => {
    const strip = example.querySelector(".strip");
    const sources = [...strip.querySelectorAll("img")];
    const stage = document.createElement("div");
    stage.className = "stage";
    const hr = sources[sources.length - 1];
    stage.style.aspectRatio = `${hr.getAttribute("width")} / ${hr.getAttribute("height")}`;
    const controls = document.createElement("div");
    controls.className = "controls";
    strip.before(stage, controls);
    const images = ["right", "left"].map((side) => make("img", "", make("div", `side ${side}`, stage)));
    images.forEach((image) => { image.alt = ""; image.draggable = false; });
    make("div", "border", stage);
    const labels = ["right", "left"].map((side) => make("span", `label ${side}`, stage));
    const range = make("input", "", controls);
    Object.assign(range, { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
    const view = { zoom: 1, x: 0, y: 0 };

    const split = (percent) => {
      range.value = within(percent, 0, 100);
      stage.style.setProperty("--split", `${range.value}%`);
    };
    const place = (x, y) => {
      view.x = within(x, stage.clientWidth * (1 - view.zoom), 0);
      view.y = within(y, stage.clientHeight * (1 - view.zoom), 0);
      const transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
      images.forEach((image) => { image.style.transform = transform; });
      stage.classList.toggle("zoomed", view.zoom > 1);
      output.textContent = `${view.zoom.toFixed(1)}×`;
    };
    const zoom = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
      const before = view.zoom;
      view.zoom = within(before * factor, 1, LARGEST);
      const ratio = view.zoom / before;
      place(x - (x - view.x) * ratio, y - (y - view.y) * ratio);
    };
    const button = (text, label, action) => {
      const made = make("button", "", controls);
      Object.assign(made, { type: "button", textContent: text });
      made.setAttribute("aria-label", label);
      made.addEventListener("click", action);
    };
    button("−", "zoom out", () => zoom(1 / 1.5));
    const output = make("output", "", controls);
    output.setAttribute("aria-label", "zoom");
    button("+", "zoom in", () => zoom(1.5));

    range.addEventListener("input", () => split(range.value));
    range.addEventListener("keydown", (event) => {
      const factor = { "+": 1.5, "-": 1 / 1.5 }[event.key];
      if (factor && !event.ctrlKey && !event.metaKey) { event.preventDefault(); zoom(factor); }
    });
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== range) return; // the page scrolls
      event.preventDefault();
      const box = stage.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });

    let drag = null;
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const box = stage.getBoundingClientRect();
      const border = box.left + (box.width * range.value) / 100;
      const pans = view.zoom > 1 && Math.abs(event.clientX - border) > GRIP;
      drag = pans ? { x: event.clientX - view.x, y: event.clientY - view.y } : {};
      stage.setPointerCapture(event.pointerId);
      range.focus({ preventScroll: true });
      event.preventDefault();
      if (!pans) split(((event.clientX - box.left) / box.width) * 100);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const box = stage.getBoundingClientRect();
      if ("x" in drag) place(event.clientX - drag.x, event.clientY - drag.y);
      else split(((event.clientX - box.left) / box.width) * 100);
    });
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { drag = null; });
    new ResizeObserver(() => place(view.x, view.y)).observe(stage);

    split(50);
    place(0, 0);
    return (left, right) => {
      [right, left].forEach((number, position) => {
        images[position].src = sources[number].src;
        labels[position].textContent = sources[number].alt;
      });
      range.setAttribute("aria-label", `where ${sources[left].alt} ends and ${sources[right].alt} begins, percent`);
    };
  };

  document.documentElement.classList.add("js");
  document.querySelectorAll("table.sortable").forEach(sortable);
  const pair = document.querySelector("form.pair");
  if (pair) {
    const examples = [...document.querySelectorAll(".example")].map(comparable);
    const { left, right } = pair.elements;
    const show = () => examples.forEach((example) => example(Number(left.value), Number(right.value)));
    pair.addEventListener("change", show);
    pair.addEventListener("submit", (event) => event.preventDefault());
    pair.hidden = false;
    show();
  }
})();
