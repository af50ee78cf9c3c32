"""Continuity of a relayed log: by the spool offsets that objects and log batches tell."""

from typing import Any, cast

import pytest

from tickhouse.audit.positions import Positions, Sources
from tickhouse.audit.report import Layer, LayerReport
from tickhouse.audit.spool import SpoolAudit
from tickhouse.bronze.object import Manifest
from tickhouse.model.positions import ChainId, Stream, TopicPartition
from tickhouse.stream.log import Bounds, LogBatch, SpoolRange

PLACE = TopicPartition(Stream.TRADES, 0)
EPOCH = "s1"


def chain_of(topic_id: str = "k1") -> ChainId:
    return ChainId(Stream.TRADES, PLACE.topic, topic_id, 0)


def manifest(
    start: int,
    following: int,
    spool: tuple[int, int] | None,
    *,
    n: int | None = None,
    gap: bool = False,
    epoch: str = EPOCH,
) -> Manifest:
    found = None if spool is None else SpoolRange(epoch, *spool)
    count = n if n is not None else 0 if spool is None else spool[1] - spool[0] + 1
    return Manifest(
        ver=1, topic=PLACE.topic, topic_id="k1", part=0, start=start, next=following, n=count,
        gap=gap, rx_min=None, rx_max=None, writer="w", sha256="", spool=found,
    )  # fmt: skip


class Audited:
    """A spool audit whose objects are given one after the other."""

    def __init__(self, *, begin: int = 0, end: int = 1000) -> None:
        self.layer = Layer("spool_to_log")
        held: dict[str, Any] = {
            "lake": {chain_of(): None},
            "loaded_ends": {},
            "log": {PLACE: ("k1", Bounds(begin, end))},
        }
        positions = Positions(
            published=None, published_fault=None, built=0, loaded=0, spool={}, **held
        )
        log = store = warehouse = cast("Any", None)
        self.spools = SpoolAudit(self.layer, Sources(log, store, warehouse, None), positions)

    def add(self, *manifests: Manifest, chain: ChainId | None = None) -> "Audited":
        place = chain or chain_of()
        for found in manifests:
            self.spools.add_object(place, place.key(found.start), found)
        return self

    def report(self) -> LayerReport:
        self.spools.finish()
        return self.layer.report()


def texts(report: LayerReport) -> str:
    return "\n".join(f"{found.kind}: {found.where}: {found.text}" for found in report.findings)


def test_markers_between_objects_and_within_them_are_no_loss() -> None:
    report = Audited().add(manifest(0, 12, (0, 9)), manifest(15, 27, (10, 19))).report()

    assert report.ok, texts(report)
    assert (20, 0, 0) == (report.checked, report.lost, report.duplicated)
    assert report.findings == []


def test_spool_offsets_missing_between_two_objects_are_lost_and_both_are_named() -> None:
    before, after = manifest(0, 10, (0, 9)), manifest(10, 20, (15, 24))

    report = Audited().add(before, after).report()

    assert 5 == report.lost
    assert "spool offsets 10..14 are in neither log nor lake" in texts(report)
    assert chain_of().key(0) in texts(report)
    assert chain_of().key(10) in texts(report)


@pytest.mark.parametrize(("n", "lost", "duplicated"), [(8, 2, 0), (11, 0, 1)])
def test_an_object_that_holds_fewer_or_more_records_than_its_range_is_named(
    n: int, lost: int, duplicated: int
) -> None:
    report = Audited().add(manifest(0, 12, (0, 9), n=n)).report()

    assert (lost, duplicated) == (report.lost, report.duplicated)
    assert chain_of().key(0) in texts(report)


def test_what_a_relay_without_the_tail_check_sent_twice_is_duplicated() -> None:
    report = Audited().add(manifest(0, 10, (0, 9)), manifest(10, 20, (5, 14))).report()

    assert (0, 5) == (report.lost, report.duplicated)
    assert chain_of().key(10) in texts(report)


def test_what_was_sent_again_behind_records_that_retention_removed_is_a_repeat() -> None:
    audited = Audited(begin=10).add(manifest(0, 10, (0, 9)), manifest(10, 20, (5, 14)))

    report = audited.report()

    assert report.ok, texts(report)
    assert "5" == report.sums["sent_again"]


def test_what_was_sent_again_after_a_lost_broker_tail_is_a_repeat_in_the_next_chain() -> None:
    audited = Audited().add(manifest(0, 20, (0, 19)))
    audited.add(manifest(0, 10, None, n=0, gap=True), manifest(10, 30, (10, 29)), chain=NEXT)

    report = audited.report()

    assert report.ok, texts(report)
    assert "10" == report.sums["sent_again"]


NEXT = chain_of("k1.1")


def test_a_recreated_topic_that_was_not_landed_to_its_end_lost_what_lies_between() -> None:
    audited = Audited().add(manifest(0, 20, (0, 19)))
    audited.add(manifest(0, 10, (30, 39)), chain=chain_of("k2"))

    report = audited.report()

    assert 10 == report.lost
    assert "spool offsets 20..29" in texts(report)


def test_records_that_lie_in_a_recorded_gap_are_counted_and_noted() -> None:
    audited = Audited().add(manifest(0, 10, (0, 9)), manifest(10, 50, None, gap=True))

    report = audited.add(manifest(50, 60, (40, 49))).report()

    assert report.ok, texts(report)
    assert "30 records lie in recorded gaps" in texts(report)


def test_a_gap_that_removed_markers_alone_holds_no_record() -> None:
    audited = Audited().add(manifest(0, 10, (0, 9)), manifest(10, 12, None, gap=True))

    report = audited.add(manifest(12, 22, (10, 19))).report()

    assert report.ok, texts(report)
    assert report.findings == []


def test_foreign_records_are_counted_and_are_no_loss() -> None:
    audited = Audited().add(manifest(0, 10, (0, 9)), manifest(10, 15, None, n=5))

    report = audited.add(manifest(15, 25, (13, 22))).report()

    assert report.ok, texts(report)
    assert "5" == report.sums["foreign"]
    assert "a foreign producer" in texts(report)


def test_more_spool_offsets_missing_than_foreign_records_is_a_loss() -> None:
    audited = Audited().add(manifest(0, 10, (0, 9)), manifest(10, 15, None, n=5))

    report = audited.add(manifest(15, 25, (18, 27))).report()

    assert 3 == report.lost


def test_a_missing_object_is_told_once_by_the_layer_that_follows() -> None:
    audited = Audited().add(manifest(0, 10, (0, 9)))
    audited.spools.add_damage(chain_of())

    report = audited.add(manifest(20, 30, (20, 29))).report()

    assert report.ok, texts(report)


def test_records_of_several_spools_in_turn_are_each_continuous() -> None:
    audited = Audited().add(
        manifest(0, 10, (0, 9)),
        manifest(10, 14, (0, 3), epoch="s2"),
        manifest(14, 20, (10, 15)),
        manifest(20, 22, (4, 5), epoch="s2"),
    )

    assert audited.report().ok


# -- the log behind the lake, and the spool before it ------------------------------------------


def batch(start: int, offsets: list[int], spool: tuple[int, int] | None) -> LogBatch:
    values = [b"{}"] * len(offsets)
    found = None if spool is None else SpoolRange(EPOCH, *spool)
    following = offsets[-1] + 2
    times = [7] * len(offsets)
    return LogBatch(PLACE, "k1", start, following, offsets, times, values, spool=found)


def test_what_the_log_holds_behind_the_lake_goes_on_where_the_lake_ends() -> None:
    audited = Audited().add(manifest(0, 12, (0, 9)))
    audited.spools.add_batch(chain_of(), batch(12, [13, 14, 16], (10, 12)))

    assert audited.report().ok


def test_retention_that_removed_markers_alone_lost_nothing() -> None:
    audited = Audited(begin=14).add(manifest(0, 12, (0, 9)))
    audited.spools.add_removed(chain_of())
    audited.spools.add_batch(chain_of(), batch(14, [14, 15], (10, 11)))

    assert audited.report().ok


def test_retention_that_removed_records_before_landing_lost_them() -> None:
    audited = Audited(begin=30).add(manifest(0, 12, (0, 9)))
    audited.spools.add_removed(chain_of())
    audited.spools.add_batch(chain_of(), batch(30, [30, 31], (25, 26)))

    assert 15 == audited.report().lost


def test_a_log_whose_first_records_were_removed_before_anything_was_landed_lost_them() -> None:
    audited = Audited(begin=30)
    audited.spools.add_removed(chain_of())
    audited.spools.add_batch(chain_of(), batch(30, [30, 31], (25, 26)))

    assert 25 == audited.report().lost


def test_what_only_the_spool_holds_waits_from_where_the_log_ends() -> None:
    audited = Audited().add(manifest(0, 12, (0, 9)))

    assert 10 == audited.spools.add_spool(PLACE, EPOCH, Bounds(4, 17))
    assert audited.report().ok


def test_a_spool_that_was_trimmed_before_it_was_relayed_lost_records() -> None:
    audited = Audited().add(manifest(0, 12, (0, 9)))
    audited.spools.add_spool(PLACE, EPOCH, Bounds(14, 17))

    assert 4 == audited.report().lost


def test_a_record_of_the_spool_that_the_relay_left_out_is_lost() -> None:
    audited = Audited().add(manifest(0, 5, (3, 7)))
    audited.spools.add_spool(PLACE, EPOCH, Bounds(0, 8))

    report = audited.report()

    assert 3 == report.lost
    assert "spool offsets 0..2 are in neither log nor lake" in texts(report)


def test_a_spool_that_was_the_embedded_log_before_is_held_by_that_logs_chain() -> None:
    audited = Audited().add(manifest(0, 40, None, n=40), chain=chain_of(EPOCH))
    audited.add(manifest(0, 12, (40, 49)))
    audited.spools.add_spool(PLACE, EPOCH, Bounds(0, 50))

    assert audited.report().ok
