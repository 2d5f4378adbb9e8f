//! The thin binary around [`retoma_marabet::command`].

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Err(error) = retoma_marabet::command(&arguments, &mut std::io::stdout()) else {
        return ExitCode::SUCCESS;
    };
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    // When even stderr is gone, the exit code has to do.
    match writeln!(std::io::stderr(), "error[{}]: {error}{hint}", error.code()) {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}
