//! `retoma verify`.

use crate::context::{AsOfArgs, Context};
use crate::exit::Exit;
use crate::output::progress::Display;
use crate::output::table;
use retoma_core::units::{ByteSize, counted};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::ops::verify::{self, Finding, Options, ReadData, Report, Severity};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read, decrypt and hash everything
    #[arg(long)]
    read_data: bool,
    /// Read only a part of the packs, chosen anew each time, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<f64>,
    #[command(flatten)]
    as_of: AsOfArgs,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "write it as 5%".to_owned())?;
    if number > 0.0 && number <= 100.0 {
        Ok(number)
    } else {
        Err("a sample is more than 0% and at most 100%".to_owned())
    }
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let repository = context.open_as_of(&loaded.manifest, &args.as_of)?;
    let read_data = match (args.sample, args.read_data) {
        (Some(percent), _) => ReadData::Sample(percent, seed()?),
        (None, true) => ReadData::All,
        (None, false) => ReadData::None,
    };
    let progress = context.interrupt.progress();
    let display = Display::start(context.printer, "verify", &progress);
    let report = verify::verify(&repository, &Options { read_data, ..Options::default() }, &progress);
    drop(display);
    let report = report?;
    print(context, &report);
    Ok(if report.is_damaged() { Exit::Missed } else { Exit::Ok })
}

fn seed() -> Result<u64> {
    let mut bytes = [0; 8];
    retoma_repo::crypto::random(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Unavailable, codes::IO_FAILED, error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

fn print(context: &Context, report: &Report) {
    for finding in &report.findings {
        context.printer.data(&text(finding));
    }
    let counts = &report.counts;
    let damage = report.damage().count();
    let verdict = if damage == 0 {
        "no damage found".to_owned()
    } else {
        let hit = counted(report.snapshots_hit().len(), "snapshot", "snapshots");
        format!("{}, {hit} hit", counted(damage, "damaged object", "damaged objects"))
    };
    let wal = match counts.wal_objects {
        0 => String::new(),
        objects => format!(", {} of WAL ({} read)", counted(objects, "object", "objects"), counts.wal_read),
    };
    context.printer.data(&format!(
        "{}, {}, {}, {} ({} read, {}){wal}: {verdict}",
        counted(counts.snapshots, "snapshot", "snapshots"),
        counted(counts.trees, "tree", "trees"),
        counted(counts.files, "file", "files"),
        counted(counts.packs, "pack", "packs"),
        counts.packs_read,
        ByteSize(counts.read_bytes)
    ));
    let findings: Vec<Value> = report.findings.iter().map(object).collect();
    let value = json!({
        "damaged": report.is_damaged(), "findings": findings,
        "snapshots_hit": report.snapshots_hit().iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        "counts": { "snapshots": counts.snapshots, "trees": counts.trees, "files": counts.files, "packs": counts.packs,
                    "packs_read": counts.packs_read, "read_bytes": counts.read_bytes,
                    "wal_objects": counts.wal_objects, "wal_read": counts.wal_read },
    });
    context.printer.json("retoma.verify/1", value);
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Damage => "damage",
        Severity::Note => "note",
    }
}

fn text(finding: &Finding) -> String {
    let at = finding.offset_bytes.map(|offset| format!(" at {offset}")).unwrap_or_default();
    let mut text = format!(
        "{}[{}] {}{at}: {}",
        severity(finding),
        finding.code,
        finding.object,
        table::printable(&finding.message)
    );
    for hit in &finding.snapshots {
        let component = hit.component.as_deref().unwrap_or("-");
        let paths: Vec<String> = hit.paths.iter().map(|path| table::path(path)).collect();
        text += &format!(
            "\n  hits snapshot {} ({}): {}",
            hit.id.short(),
            table::printable(component),
            paths.join(", ")
        );
    }
    text
}

fn object(finding: &Finding) -> Value {
    let snapshots = finding.snapshots.iter().map(|hit| {
        json!({ "id": hit.id.to_hex(), "component": hit.component.as_deref(), "time": hit.time.map(|time| time.0.to_string()),
                "paths": hit.paths.iter().map(|path| table::path(path)).collect::<Vec<_>>() })
    });
    json!({ "severity": severity(finding), "code": finding.code.as_str(), "object": finding.object,
            "offset_bytes": finding.offset_bytes, "message": finding.message, "snapshots": snapshots.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn a_sample_is_a_share() {
        assert_eq!(percent("5%"), Ok(5.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        assert!(
            percent("0").is_err()
                && percent("101").is_err()
                && percent("x").is_err()
                && percent("NaN").is_err()
        );
    }
}
