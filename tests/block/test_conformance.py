"""What the standards say, as libiscsi's iscsi-test-cu checks it."""

from hciblock import conformance


def test_all_of_iscsi_test_cu(lab):
    assert conformance.main([]) == 0, f"look at {conformance.LOGS}"


test_all_of_iscsi_test_cu.limit_s = 900
