//! The command line: one file for each verb, with its arguments and what it prints.

mod agent;
mod backup;
mod codegen;
mod copies;
mod copy;
mod cost;
mod demo;
mod diff;
mod doctor;
mod drill;
mod evidence;
mod forget;
mod init;
mod key;
mod ls;
mod plan;
mod prune;
mod record;
mod recover;
mod renew;
mod repair;
mod restore;
mod restore_spaces;
mod restore_table;
mod several;
mod shell;
mod snapshots;
mod status;
mod target;
mod usage;
mod verify;
mod wal;
mod wal_get;
mod wal_stream;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Printer;
use crate::signals::Interrupt;
use clap::{Parser, Subcommand};
use retoma_control::unlock;
use retoma_core::Result;
use std::path::PathBuf;

/// Backs a service up, brings it back after a disaster, and proves both by doing them.
#[derive(Debug, Parser)]
#[command(
    name = "retoma",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// The manifest
    #[arg(
        long,
        short = 'f',
        global = true,
        env = "RETOMA_MANIFEST",
        default_value = "retoma.toml",
        value_name = "FILE"
    )]
    manifest: PathBuf,
    /// The repository to use, by its name in the manifest (default: the first)
    #[arg(long, short = 'r', global = true, value_name = "NAME")]
    repository: Option<String>,
    /// A share of a split key; given so often as it takes, the repository is opened with them and not with its password
    #[arg(long, global = true, value_name = "FILE")]
    share: Vec<PathBuf>,
    /// Print the result as JSON, described in docs/cli-json.md
    #[arg(long, global = true)]
    json: bool,
    /// Answer yes to every question
    #[arg(long, short = 'y', global = true)]
    yes: bool,
    /// Print errors and results only
    #[arg(long, short = 'q', global = true)]
    quiet: bool,
    /// A child of the agent: the lock of its task
    #[arg(long, global = true, hide = true, requires = "agent_process")]
    agent_task: Option<PathBuf>,
    /// A child of the agent: the agent's process
    #[arg(long, global = true, hide = true)]
    agent_process: Option<u32>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Look at a folder and write a manifest for it
    Init(init::Args),
    /// Find now what would fail later, each with its fix
    Doctor,
    /// Back up components (all when none is named)
    Backup(backup::Args),
    /// Copy snapshots from one repository into another, sealed with its key
    Copy(copy::Args),
    /// List snapshots
    Snapshots(snapshots::Args),
    /// List what is in a snapshot
    Ls(ls::Args),
    /// Compare two snapshots
    Diff(diff::Args),
    /// Restore a component, or paths of it, into a folder
    Restore(restore::Args),
    /// Bring components and their service back, in place or on a blank machine
    Recover(recover::Args),
    /// Print what a person does on the worst day, before it comes
    Plan(plan::Args),
    /// Break a copy of the service, bring it back, measure, and test the checks themselves
    Drill(drill::Args),
    /// Destroy a real service and bring it back before your eyes
    Demo(demo::Args),
    /// Show how old the newest snapshots are, and which evidence still counts
    Status(status::Args),
    /// List, export and verify the signed records
    Evidence(evidence::Args),
    /// Examine the repository
    Verify(verify::Args),
    /// Remove snapshots that the retention rules no longer keep
    Forget(forget::Args),
    /// Give back the space of what no snapshot needs: marked first, deleted a day later
    Prune(prune::Args),
    /// Extend the locks of objects in the bucket before they end
    Renew(renew::Args),
    /// Make the index again from the packs, and delete what cannot be read and is in the way
    Repair(repair::Args),
    /// Archive and fetch the WAL of PostgreSQL servers, and name what is missing of it
    Wal(wal::Args),
    /// Run what is due, stream WAL, and tell what is wrong, until it is stopped
    Agent(agent::Args),
    /// List, add, replace, remove and judge the ways into a repository
    Key(key::Args),
    /// Print a completion script for a shell
    Completions(shell::CompletionArgs),
    /// Print the manual page, of the whole or of a verb
    Man(shell::ManArgs),
    /// Print a generated document
    #[command(hide = true)]
    Codegen(codegen::Args),
    /// Watch over a service
    #[command(name = "__supervise", hide = true)]
    Supervise(shell::SuperviseArgs),
    /// `restore_command` of a server that is being recovered
    #[command(name = "__wal-get", hide = true)]
    WalGet(wal_get::Args),
    /// The sample service
    #[command(name = "__marabet", hide = true, disable_help_flag = true)]
    Marabet(shell::MarabetArgs),
}

/// How a run that ended with `exit` ends, given who called it. As `restore_command`, "not in the archive" is the one
/// failure that may end a recovery; after every other, a bug or wrong usage too, the server must not start.
pub(crate) fn end_for_caller(exit: Exit) -> Exit {
    match exit {
        Exit::Ok | Exit::NotArchived => exit,
        _ if wal::is_fetch(std::env::args_os().skip(1)) => Exit::Unknown,
        _ if wal_get::is_called(std::env::args_os().skip(1)) => Exit::Unknown,
        _ => exit,
    }
}

/// Runs the program.
pub(crate) fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return usage::end(&error);
        }
    };
    let printer = Printer::new(cli.json, cli.quiet);
    // The first two handle signals themselves. PostgreSQL wants to see that its command died by the signal that it sent,
    // and nothing that this one does is left half-done.
    let serves = match &cli.verb {
        Verb::Marabet(_) | Verb::Supervise(_) | Verb::WalGet(_) => true,
        Verb::Wal(args) => !args.is_stream(),
        _ => false,
    };
    let context = Context {
        manifest_path: cli.manifest,
        yes: cli.yes,
        repository: cli.repository,
        printer,
        interrupt: if serves { Interrupt::default() } else { Interrupt::install() },
    };
    // Held until the process ends.
    let task = cli.agent_task.as_deref().zip(cli.agent_process);
    let begun = task.map(|(lock, agent)| {
        let kept = retoma_control::keyring::receive()?;
        Ok((kept, retoma_control::agent::begin_task(lock, agent)?))
    });
    let run = |_begun| {
        let shares = cli.share.iter().map(|file| unlock::read_share(file)).collect::<Result<Vec<_>>>()?;
        let _offered = (!shares.is_empty()).then(|| unlock::offer(shares));
        dispatch(&context, cli.verb)
    };
    match begun.transpose().and_then(run) {
        Ok(exit) => exit,
        Err(error) => {
            printer.error(&error);
            Exit::of(&error)
        }
    }
}

fn dispatch(context: &Context, verb: Verb) -> Result<Exit> {
    match verb {
        Verb::Init(args) => init::run(context, &args),
        Verb::Doctor => doctor::run(context),
        Verb::Backup(args) => backup::run(context, &args),
        Verb::Copy(args) => copy::run(context, &args),
        Verb::Snapshots(args) => snapshots::run(context, &args),
        Verb::Ls(args) => ls::run(context, &args),
        Verb::Diff(args) => diff::run(context, &args),
        Verb::Restore(args) => restore::run(context, &args),
        Verb::Recover(args) => recover::run(context, &args),
        Verb::Plan(args) => plan::run(context, &args),
        Verb::Drill(args) => drill::run(context, &args),
        Verb::Demo(args) => demo::run(context, &args),
        Verb::Status(args) => status::run(context, &args),
        Verb::Evidence(args) => evidence::run(context, &args),
        Verb::Verify(args) => verify::run(context, &args),
        Verb::Forget(args) => forget::run(context, &args),
        Verb::Prune(args) => prune::run(context, &args),
        Verb::Renew(args) => renew::run(context, &args),
        Verb::Repair(args) => repair::run(context, &args),
        Verb::Wal(args) => wal::run(context, &args),
        Verb::Agent(args) => agent::run(context, &args),
        Verb::Key(args) => key::run(context, &args),
        Verb::Completions(args) => Ok(shell::completions(context, &args)),
        Verb::Man(args) => shell::man(context, &args),
        Verb::Codegen(args) => codegen::run(context, &args),
        Verb::Supervise(args) => shell::supervise(&args),
        Verb::WalGet(args) => wal_get::run(&args),
        Verb::Marabet(args) => shell::marabet(&args),
    }
}
