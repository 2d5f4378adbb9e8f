//! Development tasks of the workspace: `cargo xtask help` lists them.
//!
//! Light on purpose (no dependency but `serde`): every CI run compiles it first. It never calls the crates that it
//! checks as libraries, only as programs.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bench;
mod codegen;
mod dist;
mod mutate;
mod setup;
mod sh;
mod suite;
mod tidy;

use args::Args;
use sh::Result;
use std::process::ExitCode;

const HELP: &str = "\
Development tasks. Usage: cargo xtask TASK [OPTION…]

  setup [--for test|bench|dist|deny|fuzz]   install what is missing (for all of them without --for)
  test [--profile P] [-- NEXTEST-ARGS…]     set up, then run all tests; doctests too when no arguments are given
  tidy                                      rules that the compiler does not check
  codegen [--check]                         write (or compare) the generated files
  bench files [--quick] [--size 3G] [--files 50000] [--per-folder 500] [--big 4G] [--rounds 5]
              [--tools restic,borg,tar,retoma] [--steps initial,…] [--write DATE]
                                            compare backup tools; --write puts the result into docs/benchmarks.md
  bench postgres [--quick] [--scale 100] [--rounds 3] [--tools pgbackrest,…] [--write DATE]
                                            the same for backups of PostgreSQL
  mutate [--only TEXT] [--allow-none]       break the verifier on purpose; each mutant must turn a test red
  dist                                      build the static binary into target/dist
";

fn main() -> ExitCode {
    let mut args = Args::new(std::env::args().skip(1));
    let task = args.word().unwrap_or_else(|| "help".to_owned());
    match run(&task, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask {task}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &str, args: Args) -> Result {
    match task {
        "setup" => setup::run(args),
        "test" => suite::run(args),
        "tidy" => tidy::run(args),
        "codegen" => codegen::run(args),
        "bench" => bench::run(args),
        "mutate" => mutate::run(args),
        "dist" => dist::run(args),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("there is no such task\n\n{HELP}")),
    }
}
