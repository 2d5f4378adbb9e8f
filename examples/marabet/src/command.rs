//! The command line `marabet serve | seed | load`, by hand: the library has no need of an argument parser otherwise.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use serde_json::json;

use crate::load::{LoadOptions, load, markers};
use crate::seed::{SeedOptions, seed};
use crate::serve::{ServeOptions, serve};
use crate::store::unix_ms;

const USAGE: &str = "\
usage: marabet serve --root DIR [--port N] [--port-file FILE]
       marabet seed --root DIR [--rows N] [--model-bytes N] [--log-bytes N] [--seed N]
       marabet load --url URL [--rate N] [--seconds N] [--run NAME]
";

/// Runs one command: `arguments` without the program's name, results (JSON) and help to `out`. Returns when the
/// command has ended; `serve` ends by a signal.
pub fn command(arguments: &[OsString], out: &mut dyn Write) -> Result<()> {
    let Some((verb, rest)) = arguments.split_first() else {
        return Err(usage("a command is missing"));
    };
    match verb.to_str() {
        Some("serve") => run_serve(rest),
        Some("seed") => run_seed(rest, out),
        Some("load") => run_load(rest, out),
        Some("help" | "--help" | "-h") => print(out, USAGE),
        _ => Err(usage(&format!("`{}` is not a command", verb.to_string_lossy()))),
    }
}

fn run_serve(arguments: &[OsString]) -> Result<()> {
    let mut options = ServeOptions { root: PathBuf::new(), port: 8080, port_file: None };
    let mut root = None;
    for (name, value) in pairs(arguments)? {
        match name {
            "--root" => root = Some(PathBuf::from(value)),
            "--port" => options.port = parsed(name, value)?,
            "--port-file" => options.port_file = Some(PathBuf::from(value)),
            _ => return Err(unknown(name)),
        }
    }
    options.root = root.ok_or_else(|| usage("`--root` is missing"))?;
    serve(&options)
}

fn run_seed(arguments: &[OsString], out: &mut dyn Write) -> Result<()> {
    let mut options = SeedOptions::default();
    let mut root = None;
    for (name, value) in pairs(arguments)? {
        match name {
            "--root" => root = Some(PathBuf::from(value)),
            "--rows" => options.rows = parsed(name, value)?,
            "--model-bytes" => options.model_bytes = parsed(name, value)?,
            "--log-bytes" => options.log_bytes = parsed(name, value)?,
            "--seed" => options.seed = parsed(name, value)?,
            _ => return Err(unknown(name)),
        }
    }
    let root = root.ok_or_else(|| usage("`--root` is missing"))?;
    let report = seed(&root, &options, &|_| ())?;
    let report = json!({
        "rows": report.rows,
        "database_bytes": report.database_bytes,
        "model_bytes": report.model_bytes,
        "log_bytes": report.log_bytes,
        "total_bytes": report.total_bytes(),
        "elapsed_seconds": report.elapsed.as_secs_f64(),
    });
    print(out, &format!("{report}\n"))
}

fn run_load(arguments: &[OsString], out: &mut dyn Write) -> Result<()> {
    let mut options = LoadOptions::new("", format!("load-{}", unix_ms()));
    options.limit = Duration::from_secs(10);
    let mut url = None;
    for (name, value) in pairs(arguments)? {
        match name {
            "--url" => url = Some(parsed::<String>(name, value)?),
            "--rate" => options.rate_per_second = parsed(name, value)?,
            "--seconds" => options.limit = Duration::from_secs(parsed(name, value)?),
            "--run" => options.run = parsed(name, value)?,
            _ => return Err(unknown(name)),
        }
    }
    let url = url.ok_or_else(|| usage("`--url` is missing"))?;
    options.base_url.set(&url);
    let report = load(&options, |_, _| ())?;
    let since_start = |at: std::time::Instant| at.duration_since(report.started).as_secs_f64();
    let outages: Vec<_> = report
        .outages
        .iter()
        .map(|outage| {
            json!({
                "last_ok_seconds": outage.last_ok.map(since_start),
                "first_failure_seconds": since_start(outage.first_failure),
                "first_ok_again_seconds": outage.first_ok_again.map(since_start),
                "failed_requests": outage.failed_requests,
                "first_error": outage.first_error,
            })
        })
        .collect();
    // Without an answer at the end, what is lost is not known: null, not 0.
    let found = markers(&url, &report.run, options.request_timeout).ok();
    let report = json!({
        "run": report.run,
        "elapsed_seconds": since_start(report.ended),
        "requests": report.requests,
        "markers_acknowledged": report.acknowledged.len(),
        "markers_lost": found.map(|found| report.lost(&found).count()),
        "predictions_acknowledged": report.prediction_ids.len(),
        "outages": outages,
    });
    print(out, &format!("{report}\n"))
}

/// The arguments as `--name value`.
fn pairs(arguments: &[OsString]) -> Result<Vec<(&str, &OsString)>> {
    arguments
        .chunks(2)
        .map(|pair| match pair {
            [name, value] => match name.to_str() {
                Some(name) if name.starts_with("--") => Ok((name, value)),
                _ => Err(usage(&format!("`{}` is not an option", name.to_string_lossy()))),
            },
            _ => Err(usage(&format!("`{}` needs a value", pair[0].to_string_lossy()))),
        })
        .collect()
}

fn parsed<T: FromStr>(name: &str, value: &OsString) -> Result<T> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| usage(&format!("`{}` does not fit `{name}`", value.to_string_lossy())))
}

fn unknown(name: &str) -> Error {
    usage(&format!("`{name}` is not an option of this command"))
}

fn usage(message: &str) -> Error {
    Error::new(ErrorKind::Invalid, codes::USAGE, message).with_hint("see `marabet help`")
}

fn print(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Error::io("output", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<String> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let mut out = Vec::new();
        command(&arguments, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn wrong_command_lines_say_what_is_wrong() {
        for (line, reason) in [
            ("", "a command is missing"),
            ("dance", "`dance` is not a command"),
            ("serve", "`--root` is missing"),
            ("serve --root", "`--root` needs a value"),
            ("serve --root x --port 70000", "`70000` does not fit `--port`"),
            ("seed --root x --color red", "`--color` is not an option of this command"),
            ("seed x y", "`x` is not an option"),
            ("load --rate 5", "`--url` is missing"),
        ] {
            let error = run(line).unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (codes::USAGE, reason));
        }
    }

    #[test]
    fn help_names_every_command() {
        let help = run("help").unwrap();
        assert!(["serve", "seed", "load"].iter().all(|verb| help.contains(&format!("marabet {verb} "))));
    }

    #[test]
    fn seed_prints_its_report() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let line = format!("seed --root {} --rows 10 --model-bytes 1000 --log-bytes 1000", root.display());
        let report: serde_json::Value = serde_json::from_str(&run(&line).unwrap()).unwrap();
        assert_eq!(report["rows"], 10);
        assert!(root.join("config/marabet.toml").exists());
    }
}
