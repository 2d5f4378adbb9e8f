//! Rules for Prometheus over the agent's metrics. They repeat the agent's own alerts from outside, where also the agent's
//! silence is seen.
//!
//! The output is YAML that is written by hand in one narrow form: keys without special characters, every value quoted.

/// One rule.
struct Rule {
    alert: &'static str,
    expression: &'static str,
    lasting: &'static str,
    severity: &'static str,
    summary: &'static str,
}

const fn rule(
    alert: &'static str,
    expression: &'static str,
    lasting: &'static str,
    severity: &'static str,
    summary: &'static str,
) -> Rule {
    Rule { alert, expression, lasting, severity, summary }
}

/// All rules, in the order of the output.
static RULES: &[Rule] = &[
    rule("RetomaAgentSilent", "absent(retoma_build_info)", "2m", "critical", "No agent answers."),
    rule(
        "RetomaAgentStuck",
        "time() - retoma_agent_decided_timestamp_seconds > 60",
        "1m",
        "critical",
        "The agent on {{ $labels.instance }} no longer decides.",
    ),
    rule(
        "RetomaAlert",
        "retoma_alert_active == 1",
        "0m",
        "{{ $labels.severity }}",
        "{{ $labels.alert }} {{ $labels.component }} {{ $labels.repository }}",
    ),
    rule(
        "RetomaBackupLate",
        "retoma_component_age_seconds > retoma_component_age_limit_seconds",
        "1m",
        "critical",
        "The newest complete snapshot of {{ $labels.component }} is older than it may be.",
    ),
    rule(
        "RetomaNeverBackedUp",
        "retoma_component_rpo_objective_seconds unless retoma_component_last_success_timestamp_seconds",
        "15m",
        "critical",
        "There is no complete snapshot of {{ $labels.component }} in every one of its repositories.",
    ),
    rule(
        "RetomaRepositoryDown",
        "retoma_repository_up == 0",
        "1m",
        "critical",
        "Repository {{ $labels.repository }} does not answer.",
    ),
    rule(
        "RetomaWalStreamDown",
        "retoma_wal_stream_up == 0",
        "30s",
        "critical",
        "The WAL of {{ $labels.component }} is not streamed.",
    ),
    rule(
        "RetomaWalArchiveDown",
        "retoma_wal_archive_up == 0",
        "30s",
        "critical",
        "The WAL of {{ $labels.component }} is not archived.",
    ),
    rule(
        "RetomaWalGap",
        "retoma_wal_open_gaps > 0",
        "0m",
        "critical",
        "WAL of {{ $labels.component }} is missing; make a backup now.",
    ),
    rule(
        "RetomaSlotFilling",
        "retoma_wal_slot_used_ratio >= 0.5",
        "0m",
        "warning",
        "The replication slot of {{ $labels.component }} keeps more than half of what it may.",
    ),
    rule("RetomaDrillFailed", "retoma_drill_passed == 0", "0m", "critical", "The last drill was not green."),
    rule(
        "RetomaRtoMissed",
        "retoma_drill_rto_measured_seconds > on (instance) group_left () max by (instance) (retoma_component_rto_objective_seconds)",
        "0m",
        "critical",
        "The last drill took longer than the longest RTO.",
    ),
];

/// A file of alert rules; the same text each time.
pub fn alert_rules() -> String {
    let mut text =
        "# Printed by `retoma agent --print alert-rules`.\ngroups:\n  - name: retoma\n    rules:\n"
            .to_owned();
    for rule in RULES {
        text += &format!(
            "      - alert: {}\n        expr: {}\n        for: {}\n        labels:\n          severity: {}\n        \
             annotations:\n          summary: {}\n",
            rule.alert,
            quoted(rule.expression),
            rule.lasting,
            quoted(rule.severity),
            quoted(rule.summary)
        );
    }
    text
}

/// A YAML scalar in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::metrics::TABLE;

    #[test]
    fn every_rule_asks_for_metrics_that_there_are() {
        for rule in RULES {
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            let names: Vec<&str> =
                rule.expression.split(word).filter(|word| word.starts_with("retoma_")).collect();
            assert!(!names.is_empty(), "{}", rule.alert);
            for name in names {
                assert!(TABLE.iter().any(|metric| metric.name == name), "{}: {name}", rule.alert);
            }
        }
        insta::assert_snapshot!("alert_rules", alert_rules());
    }

    #[test]
    fn quotes_end_nothing() {
        assert_eq!(quoted("it's"), "'it''s'");
    }
}
