//! The last words of `paxosctl run`.

use std::time::Duration;

use proof::check::Verdict;
use proof::load::Finished;
use proof::verify::Proof;

use super::{Args, Live};
use crate::cli::Context;
use crate::ui::Style;

pub(super) fn show(
    args: &Args,
    ran: Duration,
    finished: &Finished,
    live: &Live<'_>,
    proof: &Proof,
    context: &Context,
) {
    let counts = finished.stats.total();
    if context.json() {
        context.ui.json(&serde_json::json!({
            "schema_version": 1,
            "event": "result",
            "duration_ms": ran.as_millis() as u64,
            "writes_acknowledged": counts.writes_ok.to_string(),
            "reads": counts.reads_ok.to_string(),
            "refused": counts.failed.to_string(),
            "unknown": counts.unknown.to_string(),
            "words": counts.words,
            "p50_us": counts.latency(50.0).as_micros() as u64,
            "p99_us": counts.latency(99.0).as_micros() as u64,
            "leader_changes": live.leader_changes.to_string(),
            "keys_read_back": proof.audit.keys_checked.to_string(),
            "operations_checked": proof.recorded.to_string(),
            "verdict": proof.verdict.to_string(),
        }));
        return;
    }
    let ui = &context.ui;
    let seconds = ran.as_secs_f64();
    ui.data(format!(
        "\nran {seconds:.1} s with {} servers, {} clients, config {}",
        args.servers, args.clients, args.config
    ));
    ui.data(format!(
        "writes  {} acknowledged ({}/s), reads {}; refused {}, of unknown fate {}{}",
        grouped(counts.writes_ok),
        grouped((counts.writes_ok as f64 / seconds) as u64),
        grouped(counts.reads_ok),
        grouped(counts.failed),
        grouped(counts.unknown),
        words(&counts.words),
    ));
    ui.data(format!(
        "latency p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
        milliseconds(counts.latency(50.0)),
        milliseconds(counts.latency(99.0)),
        milliseconds(counts.latency(100.0)),
    ));
    ui.data(format!(
        "leader  {}, changes after the first election: {}",
        live.leader.as_deref().unwrap_or("none"),
        live.leader_changes
    ));
    let (style, verdict) = match &proof.verdict {
        Verdict::Holds => (
            Style::Good,
            format!(
                "holds: {} keys read back, every acknowledged write is there, none twice; {} recorded \
                 operations are linearizable",
                grouped(proof.audit.keys_checked),
                grouped(proof.recorded as u64)
            ),
        ),
        Verdict::Violated(_) => (Style::Bad, proof.verdict.to_string()),
        Verdict::Unknown(_) => (Style::Warn, proof.verdict.to_string()),
    };
    ui.data(format!("proof   {}", ui.on_stdout(&verdict, style)));
    for finding in &proof.audit.findings {
        ui.data(format!("        {finding}"));
    }
}

/// `1 203 918`: digits in groups of three.
pub(in crate::commands) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn words(words: &std::collections::BTreeMap<String, u64>) -> String {
    if words.is_empty() {
        return String::new();
    }
    let words: Vec<String> = words.iter().map(|(word, count)| format!("{word} {count}")).collect();
    format!(" ({})", words.join(", "))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_groups_of_three() {
        let all = [0, 7, 999, 1_000, 1_203_918].map(grouped);
        assert_eq!(all, ["0", "7", "999", "1 000", "1 203 918"]);
    }
}
