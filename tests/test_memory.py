from nt_residual import memory


def test_the_memory_of_the_host_is_the_least_of_all_limits(monkeypatch, tmp_path):
    limit, used = tmp_path / "limit", tmp_path / "used"
    limit.write_text("5000000\n")
    used.write_text("3000000\n")
    monkeypatch.setattr(memory, "_CGROUPS", ((str(limit), str(used)),))
    assert memory.available() == 2_000_000
    limit.write_text("max\n")
    assert memory.available() > 5_000_000


def test_the_memory_of_an_accelerator_is_what_its_allocator_has_left():
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 300}

    assert memory.available(Device()) == 700
