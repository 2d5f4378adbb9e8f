//! The processes that tests start are this test program itself, called with the name of one of these functions:
//! `it --exact helper::marabet --nocapture -- serve --root .`

use retoma_control::service::supervise;
use std::ffi::OsString;

/// What stands after the first `--`, when this process was started to be `role`.
fn called_as(role: &str) -> Option<Vec<OsString>> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The arguments of a supervisor hold those of the service too: only the first name counts.
    (arguments.get(2)? == role).then_some(())?;
    let at = arguments.iter().position(|argument| argument == "--")?;
    Some(arguments[at + 1..].to_vec())
}

#[allow(clippy::disallowed_methods, reason = "this process is no test but a program")]
fn exit(status: i32) -> ! {
    std::process::exit(status)
}

#[test]
fn supervisor() {
    if let Some(command) = called_as("helper::supervisor") {
        exit(supervise(&command).unwrap_or(1));
    }
}

#[test]
fn marabet() {
    if let Some(arguments) = called_as("helper::marabet") {
        let ended = retoma_marabet::command(&arguments, &mut std::io::stderr());
        if let Err(error) = &ended {
            eprintln!("{error}");
        }
        exit(i32::from(ended.is_err()));
    }
}

/// A whole demo in the folder that is named, to be killed by a test.
#[test]
fn demo() {
    if let Some(arguments) = called_as("helper::demo") {
        let base = std::path::PathBuf::from(&arguments[0]);
        exit(i32::from(super::demo::run(&base, &retoma_control::Interrupt::default()).is_err()));
    }
}
