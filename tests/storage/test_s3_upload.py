"""The sizes of an upload's parts, against S3's rules."""

from mana_dist.storage.s3_upload import part_bytes


def test_five_terabytes_fit_and_every_part_is_one_that_s3_takes() -> None:
    sizes = [part_bytes(number) for number in range(1, 10_001)]
    assert sum(sizes) >= 5 * 2**40
    assert 5 * 2**20 <= min(sizes) <= max(sizes) <= 5 * 2**30
    assert len(set(sizes[:1000])) == 1  # stores that want equal parts take 16 GiB
    assert sizes[:1000][0] == 16 * 2**20
