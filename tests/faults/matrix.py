"""The fault matrix: every fault that was thought of, in words, and how it is played or why it is not.

A row is a function that plays the fault against a daemon process and the fake exchange; when it is over, what must
always hold is counted (global_counts.py). `proven_in` names the tests that prove a row in every detail; where such a
row is slow, it is played in `make faults` only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import rows_alerts as alerts
import rows_bingx as swap
import rows_crash as crash
import rows_disk as disk
import rows_exchange as exchange
import rows_flattrade as shares
from fault_stage import Stage


@dataclass(frozen=True, slots=True)
class Row:
    """`play` or `not_here`: why it cannot be played on a plain machine. `slow`: not in the short form."""

    number: int
    fault: str
    play: Callable[[Stage], None] | None = None
    proven_in: str = ""
    not_here: str = ""
    slow: bool = False


KILLS, FAULTS, STOPS, LIMITS = (
    "test_kills.py",
    "test_orders_under_faults.py",
    "test_start_and_stop.py",
    "test_limits.py",
)
CLOCKS = "test_clocks.py"
BINGX, BINGX_CALLS = "test_bingx.py", "test_bingx_client.py"
CSV, DISK, HTTP = "test_csv_logger.py", "test_disk_faults.py", "test_http.py"

ROWS = (
    Row(1, "kill -9 before the journal", crash.before_the_journal, KILLS, slow=True),
    Row(2, "kill -9 inside the transaction", crash.inside_the_transaction, KILLS, slow=True),
    Row(3, "kill -9 after the intent, before the order leaves", crash.after_the_intent, KILLS, slow=True),
    Row(4, "kill -9 while the order is under way", crash.under_way, KILLS, slow=True),
    Row(5, "kill -9 after the answer, before it is written", crash.after_the_answer, KILLS, slow=True),
    Row(6, "kill -9 after the commit, before the CSV row", crash.before_the_rows, KILLS, slow=True),
    Row(7, "kill -9 in the middle of a CSV row", crash.inside_a_row, KILLS, slow=True),
    Row(8, "kill -9 before the reply", crash.before_the_reply, KILLS, slow=True),
    Row(9, "kill -9 during recovery, again and again", crash.during_recovery, KILLS, slow=True),
    Row(10, "power loss: what was not synced is gone or torn", crash.power_loss),
    Row(11, "SIGTERM with an order under way", crash.told_to_stop, STOPS, slow=True),
    Row(12, "no answer, the order is filled", exchange.read_timeout_filled, FAULTS, slow=True),
    Row(13, "no answer, the order is not there", exchange.read_timeout_not_there, FAULTS, slow=True),
    Row(14, "the order is accepted late", exchange.accepted_late, FAULTS, slow=True),
    Row(15, "the connection is reset or closed", exchange.connection_reset, FAULTS, slow=True),
    Row(16, "half headers, half a body, a body that stalls", exchange.broken_body, FAULTS, slow=True),
    Row(17, "the answer drips byte by byte", exchange.byte_drip),
    Row(18, "200 with a page, nothing, half, another order", exchange.senseless_answer, FAULTS, slow=True),
    Row(19, "500, 502, 503, 504, -1006, -1007", exchange.server_errors, FAULTS, slow=True),
    Row(20, "429 with Retry-After", exchange.told_to_wait),
    Row(21, "418, and a restart during the ban", exchange.banned_over_a_restart),
    Row(22, "a firewall's 403 page", exchange.waf_page),
    Row(23, "the clocks differ (-1021)", exchange.clock_was_wrong, FAULTS),
    Row(24, "refused: -1013, -2010, -2015", exchange.refused, FAULTS),
    Row(25, "no connection", exchange.cannot_connect, FAULTS, slow=True),
    Row(26, "look-ups fail during recovery", exchange.recovery_without_answers, STOPS, slow=True),
    Row(27, "not found, then it appears", exchange.found_late, FAULTS, slow=True),
    Row(28, "partly executed, the rest expired", exchange.partly_executed),
    Row(29, "the alert is sent four times", alerts.sent_four_times, FAULTS),
    Row(30, "four copies in the same moment", alerts.four_at_once, LIMITS),
    Row(31, "a storm: 200 posts of 50 alerts", alerts.storm, LIMITS, slow=True),
    Row(32, "two alerts race for the last slot", alerts.two_for_the_last_slot),
    Row(33, "an old body is sent again", alerts.old_body, LIMITS, slow=True),
    Row(34, "the same id with another size", alerts.same_id_other_size),
    Row(35, "the disk is full for the journal", disk.full_for_the_journal, STOPS, slow=True),
    Row(36, "the disk is full for the CSV files alone, short writes", None, DISK, "needs a small disk of its own"),
    Row(37, "EIO from write and fsync", None, DISK, "needs a tool that fails single system calls (strace)"),
    Row(38, "a slow disk", disk.slow_disk),
    Row(39, "another program locks a CSV file", None, CSV,
        "only Windows denies writers; the refusal is played inside the process"),
    Row(40, "an office program saves a CSV file over", disk.saved_over, CSV, slow=True),
    Row(41, "CSV files deleted, replaced, without header", disk.files_gone, CSV),
    Row(41, "the data folder is moved away while it runs", disk.folder_gone),
    Row(42, "the journal is corrupt at many places", disk.corrupt_journal),
    Row(43, "the journal is missing, CSV files are there", disk.journal_gone, STOPS, slow=True),
    Row(44, "a second instance", disk.second_instance),
    Row(45, "the clock jumps", disk.clock_jumps, LIMITS, slow=True),
    Row(45, "the machine's clock is far from the exchange's", disk.clock_far_off, CLOCKS),
    Row(46, "midnight under load, on a leap day, in another zone", disk.midnight),
    Row(47, "restarted after midnight, after three days", disk.another_day, LIMITS, slow=True),
    Row(48, "input that is none", alerts.bad_input, HTTP),
    Row(49, "a body of 60 MB, with and without a length", alerts.huge_body),
    Row(50, "slow loris: headers and bodies drop by drop", alerts.slow_loris),
    Row(51, "the secret is guessed at", alerts.brute_force, HTTP, slow=True),
    Row(52, "a spoofed address", alerts.spoofed_address, HTTP),
    Row(53, "formulas and line breaks in every text", alerts.injected_text, CSV, slow=True),
    Row(54, "the sender hangs up", alerts.sender_hangs_up),
    Row(55, "everything is blocked: /health answers", alerts.all_hooks_blocked),
    Row(56, "an error nobody foresaw", alerts.unforeseen_error, STOPS, slow=True),
    Row(57, "a crash loop", crash.crash_loop),
    Row(58, "settings that contradict each other", disk.wrong_settings),
    Row(61, "BingX: the reply is lost, the order is there", swap.reply_lost, BINGX, slow=True),
    Row(62, "BingX: the order never arrived", swap.never_arrived, BINGX, slow=True),
    Row(63, "BingX: refused, and codes that nobody ever heard of", swap.refused_or_not_known),
    Row(64, "BingX: the reply takes longer than anybody waits", swap.slow_reply),
    Row(65, "BingX: an endpoint is closed, and a ban over a restart", swap.told_to_wait, BINGX_CALLS, slow=True),
    Row(66, "BingX: the clocks differ (100421)", swap.clock_was_wrong),
    Row(67, "BingX: kill -9 around the order", swap.killed_around_the_order, BINGX, slow=True),
    Row(68, "BingX: restarted in doubt, and look-ups fail", swap.restarted_in_doubt),
    Row(69, "BingX: the reply to a stop is lost", swap.stop_in_doubt, BINGX, slow=True),
    Row(71, "FlatTrade: the reply is lost, the order is there", shares.reply_lost),
    Row(72, "FlatTrade: the order never arrived", shares.never_arrived),
    Row(73, "FlatTrade: refused after Ok", shares.refused_after_ok),
    Row(74, "FlatTrade: the reply takes longer than anybody waits", shares.slow_reply),
    Row(75, "FlatTrade: the token dies between the order and its follow-up", shares.token_dies_in_between),
    Row(76, "FlatTrade: kill -9 around the order", shares.killed_around_the_order),
    Row(77, "FlatTrade: restarted with an order unheard of and no login", shares.restarted_without_login),
    Row(78, "FlatTrade: partly executed, the rest cancelled", shares.partly_executed),
)  # fmt: skip
