//! A folder of its own for each test, and the program run in it with an environment of its own.

pub(crate) use retoma_testkit::wait_for_what as wait_for;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The password of every repository here.
pub(crate) const PASSWORD: &str = "a password for tests";

/// A component of files in the folder `models`.
pub(crate) const MODELS: &str = r#"
[[component]]
name = "models"
kind = "files"
tier = "high"
path = "models"
"#;

/// A component with the database `data/app.sqlite`.
pub(crate) const DATABASE: &str = r#"
[[component]]
name = "database"
kind = "sqlite"
tier = "critical"
path = "data/app.sqlite"
"#;

/// The rows of [`Home::seed_database`].
pub(crate) const ROWS: i64 = 500;

/// The folder of a test, which stands for the whole machine.
pub(crate) struct Home {
    _folder: TempDir,
    root: PathBuf,
}

impl Home {
    /// An empty one.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("tmp")).unwrap();
        Self { _folder: folder, root }
    }

    /// One with a password and a manifest with these components; the repository is not there yet.
    pub(crate) fn with(components: &str) -> Self {
        let home = Self::empty();
        home.write_private("password", PASSWORD);
        home.write_manifest(components);
        home
    }

    /// Models in the first snapshot of a repository.
    pub(crate) fn backed_up() -> Self {
        let home = Self::with(MODELS);
        home.seed_models();
        home.back_up();
        home
    }

    /// Replaces the manifest.
    pub(crate) fn write_manifest(&self, components: &str) {
        let head = format!(
            "version = 1\n\n[service]\nname = \"marabet\"\n\n[[repository]]\nname = \"local\"\nurl = \"file://{}\"\n\
             password = \"file:password\"\n",
            self.text_path("repository")
        );
        self.write("retoma.toml", format!("{head}{components}").as_bytes());
    }

    /// The path of something in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The same as text.
    pub(crate) fn text_path(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file and the folders that lead to it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_private(&self, name: &str, text: &str) {
        use std::io::Write;
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Some models: files in folders, a link and an empty file.
    pub(crate) fn seed_models(&self) {
        self.write("models/winner.f32", &retoma_testkit::bytes(1, 300_000));
        self.write("models/old/loser.f32", &retoma_testkit::bytes(2, 5_000));
        self.write("models/empty", b"");
        std::os::unix::fs::symlink("winner.f32", self.path("models/current")).unwrap();
    }

    /// A database with [`ROWS`] rows.
    pub(crate) fn seed_database(&self) {
        std::fs::create_dir_all(self.path("data")).unwrap();
        let mut database = rusqlite::Connection::open(self.path("data/app.sqlite")).unwrap();
        let transaction = database.transaction().unwrap();
        transaction
            .execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER NOT NULL)")
            .unwrap();
        for id in 0..ROWS {
            transaction.execute("INSERT INTO orders VALUES (?1, ?2)", (id, id * 3)).unwrap();
        }
        transaction.commit().unwrap();
    }

    /// The program, with nothing of the environment that could change what it does.
    pub(crate) fn command(&self) -> Command {
        self.through(Command::new(env!("CARGO_BIN_EXE_retoma")))
    }

    /// Any program in the same place and environment.
    pub(crate) fn through(&self, mut command: Command) -> Command {
        command.current_dir(&self.root).stdin(Stdio::null()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.root).env("TMPDIR", self.root.join("tmp"));
        command.envs([("NO_COLOR", "1"), ("TZ", "UTC"), ("COLUMNS", "100"), ("LC_ALL", "C.UTF-8")]);
        command
    }

    /// Runs `command` of the program to its end; gives what it said, how long it took and the peak of its memory in bytes.
    pub(crate) fn measured(&self, mut command: Command) -> (Run, Duration, u64) {
        let (out, errors) = (self.path("tmp/out"), self.path("tmp/errors"));
        command.stdout(Stdio::from(std::fs::File::create(&out).unwrap()));
        command.stderr(Stdio::from(std::fs::File::create(&errors).unwrap()));
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        let (mut peak, status) = (0, format!("/proc/{}/status", child.id()));
        let ended = retoma_testkit::wait_for_long("the program to end", Duration::from_mins(20), || {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak =
                line.map_or(peak, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10);
            child.try_wait().unwrap()
        });
        let output = Output {
            status: ended,
            stdout: std::fs::read(out).unwrap(),
            stderr: std::fs::read(errors).unwrap(),
        };
        (Run::new(format!("{command:?}"), &output), began.elapsed(), peak)
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let output = self.command().args(arguments).output().unwrap();
        Run::new(format!("retoma {}", arguments.join(" ")), &output)
    }

    /// Runs it with `--json`; it must end with `code` and print one document with this schema.
    pub(crate) fn json(&self, arguments: &[&str], code: i32, schema: &str) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let value = self.run(&all).expect(code).document();
        assert_eq!(value["schema"], schema, "{value:#}");
        value
    }

    /// Backs everything up; gives the document.
    pub(crate) fn back_up(&self) -> Value {
        self.json(&["backup"], 0, "retoma.backup/1")
    }

    /// The snapshots in the repository, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<Value> {
        self.json(&["snapshots"], 0, "retoma.snapshots/1")["snapshots"].as_array().unwrap().clone()
    }

    /// Deletes the largest pack, which holds file contents; gives its id.
    pub(crate) fn remove_largest_pack(&self) -> String {
        let packs = tree(&self.path("repository/data")).into_iter();
        let (name, _) = packs.max_by_key(|(_, (_, _, _, contents))| contents.len()).unwrap();
        std::fs::remove_file(self.path("repository/data").join(&name)).unwrap();
        name.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Runs the public restic on the repository; `None` where it is not installed, which it says.
    pub(crate) fn restic(&self, arguments: &[&str]) -> Option<Run> {
        let program = retoma_testkit::require_tool("restic")?;
        let mut command = self.through(Command::new(program));
        command.arg("--no-cache").arg("--repo").arg(self.path("repository"));
        command.arg("--password-file").arg(self.path("password")).args(arguments);
        Some(Run::new(format!("restic {}", arguments.join(" ")), &command.output().unwrap()))
    }

    /// Compares a whole command with its snapshot: paths, ids, times, sizes and durations are left out.
    pub(crate) fn assert_snapshot(&self, name: &str, run: &Run) {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.add_filter(&literal(&self.root.display().to_string()), "[HOME]");
        settings.add_filter(&format!(r"\b{}\b", literal(&retoma_repo::host::hostname())), "[HOST]");
        settings.add_filter(r"\b[0-9a-f]{64}\b", "[ID64]");
        settings.add_filter(r"\b[0-9a-f]{8}\b( \*)?", "[ID]");
        settings.add_filter(r"\bset [0-9a-f]{16}\b", "set [SET]");
        settings.add_filter(r"[A-Za-z0-9+/]{43}=", "[PUBLIC KEY]");
        settings.add_filter(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?", "[TIME]");
        settings.add_filter(r"\d+(\.\d+)? ([KMGT]i)?B\b", "[SIZE]");
        settings.add_filter(r"\b\d+(\.\d+)? s\b", "[SECONDS]");
        settings.add_filter(r"─+", "─");
        // Columns of tables are as wide as what was left out; carets under a manifest's line stay where they are.
        settings.add_filter(r"([^|\s])  +", "$1  ");
        settings.add_filter(r"\[ID\]  [^\[\s]\S*  \[HOST\]", "[ID]  [USER]  [HOST]");
        settings.add_filter(r"\[ID\]  (password|key file)  [^\[\s]\S*  \[HOST\]", "[ID]  $1  [USER]  [HOST]");
        settings.add_filter(r"data/[0-9a-f]{2}/", "data/[ID2]/");
        settings.add_filter(r" at \d+(: blob| of pack)", " at [OFFSET]$1");
        // One for each folder that leads to the temporary one.
        settings.add_filter(r"\b\d+ trees", "[COUNT] trees");
        settings.add_filter(r"\b\d+ blobs in them", "[COUNT] blobs in them");
        // A second backup stores trees again when something else has changed the folder for temporary files meanwhile.
        settings.add_filter(r"\b\d+ packs( indexed|, \[COUNT\] blobs in them)", "[COUNT] packs$1");
        settings.add_filter(r"\b(needed|waste):( +)\d+ blobs", "$1:$2[COUNT] blobs");
        settings.bind(|| insta::assert_snapshot!(name, run.text()));
    }
}

fn literal(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_alphanumeric() || c == '/' { vec![c] } else { vec!['\\', c] }).collect()
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn new(line: String, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { line, code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Fails unless it ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.text());
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Command, exit code, stdout and stderr as one text.
    pub(crate) fn text(&self) -> String {
        let code = self.code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
        let mut text = format!("$ {}\nexit {code}\n", self.line);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !stream.is_empty() {
                text = format!("{text}--- {name}\n{stream}");
            }
        }
        text
    }
}

/// What is below a folder: for each relative path mode, time and contents, so that two folders can be compared.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let contents = if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).unwrap()
            };
            let facts = (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), contents);
            found.insert(path.strip_prefix(root).unwrap().to_owned(), facts);
        }
    }
    found
}

/// The names of a document's fields, sorted.
pub(crate) fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Sends a signal to a program that a test started.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}
