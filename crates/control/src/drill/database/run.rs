//! One drill of a server, from its first write to the result.

use super::super::disaster::Scenario;
use super::super::inventory::Inventory;
use super::super::markers::{self, Markers, Which};
use super::super::report::Facts;
use super::super::steps::{complete, noticed};
use super::super::{Context, MARKS_LIMIT};
use super::shipping::{Shipping, archiving};
use super::tables::{self, LOADERS, Load, Rows};
use super::{Scene, controls};
use crate::backup::{self, ComponentBackup};
use crate::drill::patient::address_of;
use crate::open::open_address;
use crate::postgres::{Instance, Serve, user_of};
use crate::recover::{self, Place, Plan, Request};
use crate::timeline::Timeline;
use crate::wal::check as wal_check;
use crate::watch::Note;
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::drill::{CheckResult, Seconds, StepName};
use retoma_core::manifest::WalMode;
use retoma_core::postgres::Lsn;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::Repository;
use retoma_repo::backup::Progress;
use retoma_sources::postgres::wire::Address;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the scratch server may take to start.
const START_LIMIT: Duration = Duration::from_mins(5);
/// How long one of PostgreSQL's programs may take.
const PROGRAM_LIMIT: Duration = Duration::from_hours(1);
/// How long files may keep coming while a folder is removed: processes that were killed take a moment to end.
const REMOVE_LIMIT: Duration = Duration::from_secs(30);
/// The size of a page.
const PAGE_BYTES: u64 = 8192;

pub(super) struct Drill<'a> {
    scene: &'a Scene,
    scenario: Scenario,
    context: &'a Context<'a>,
    run: String,
    address: Address,
    markers: Markers,
    load: Load,
    spool: PathBuf,
    archive_timeout_seconds: u64,
}

/// A position in the WAL, and the finished segment that it ends.
struct Switched {
    until: Lsn,
    segment: String,
}

/// What is there right before the disaster.
struct Before {
    rows: Rows,
    /// A segment in the middle of what was shipped since the last backup.
    middle: String,
}

/// A disaster that was noticed, and what is left to decide.
struct Struck {
    goal: Goal,
    /// What has to be found beside.
    found: Vec<CheckResult>,
}

impl<'a> Drill<'a> {
    pub(super) fn new(
        scene: &'a Scene,
        scenario: Scenario,
        context: &'a Context<'a>,
        id: &str,
    ) -> Result<Self> {
        let run = format!("drill-{id}");
        let markers = Markers::new(&scene.manifest, &run, context.clock);
        Ok(Self {
            scene,
            scenario,
            context,
            run,
            address: scene.address()?,
            markers,
            load: Load::default(),
            spool: scene.scratch.join("wal"),
            archive_timeout_seconds: 0,
        })
    }

    /// Fills `facts`, as far as it comes.
    pub(super) fn run(mut self, repository: Repository, facts: &mut Facts) -> Result<()> {
        let interrupt = self.context.interrupt;
        std::fs::create_dir(&self.spool).map_err(|error| Error::io(self.spool.display(), error))?;
        if let Some((user, group)) = user_of(&self.scene.data)? {
            std::os::unix::fs::chown(&self.spool, Some(user), Some(group))
                .map_err(|error| Error::io(self.spool.display(), error))?;
        }
        self.archive_timeout_seconds = self.configured_timeout()?;
        let server = self.serve(true)?;
        markers::make_table(&self.address)?;
        Load::make_table(&self.address)?;
        let system_identifier = self.scene.facts.server.system_identifier;
        let shipping = Shipping::start(&self.scene.manifest, system_identifier, &repository, &self.spool)?;
        std::thread::scope(|scope| {
            scope.spawn(|| self.markers.write(interrupt));
            for _ in 0..LOADERS {
                scope.spawn(|| self.load.write(&self.address, &self.run, interrupt));
            }
            let result = self.under_load(repository, server, shipping, facts);
            self.markers.stop();
            self.load.stop();
            result
        })
    }

    fn note(&self, what: &str) {
        self.context.watch.note(&Note::Doing(what.to_owned()));
    }

    /// The scratch server without any archive.
    fn serving(&self) -> Serve<'_> {
        Serve {
            supervisor: self.context.supervisor,
            data: &self.scene.data,
            facts: &self.scene.facts,
            folder: self.scene.sockets.path(),
            archiving: None,
        }
    }

    /// Starts the server; with `ships`, finished WAL waits for [`Shipping`].
    fn serve(&self, ships: bool) -> Result<Instance> {
        let is_archived = self.scene.component()?.wal.mode == WalMode::Archive;
        let archiving = (ships && is_archived).then(|| archiving(&self.spool, self.archive_timeout_seconds));
        let serve = Serve { archiving, ..self.serving() };
        Instance::serve(&serve, START_LIMIT, self.context.interrupt).context("start the scratch server")
    }

    /// The `archive_timeout` that the backed-up configuration has, where it lies in the data directory; 0 otherwise.
    fn configured_timeout(&self) -> Result<u64> {
        let (status, said) = self.serving().run_offline(
            "postgres",
            &["-C", "archive_timeout"],
            PROGRAM_LIMIT,
            self.context.interrupt,
        )?;
        let last = said.trim_matches('`').split_whitespace().last().and_then(|word| word.parse().ok());
        Ok(last.filter(|_| status == 0).unwrap_or(0))
    }

    /// Everything that happens while marks are written.
    fn under_load(
        &self,
        repository: Repository,
        server: Instance,
        shipping: Shipping,
        facts: &mut Facts,
    ) -> Result<()> {
        self.markers.open(Which::All);
        self.load.open();
        self.more_marks()?;
        self.note("back up, twice, while writes go on");
        self.back_up(&repository)?;
        self.more_marks()?;
        let done = self.back_up(&repository)?;
        facts.exposed.insert(done.component, done.elapsed);
        let before = self.before(&shipping)?;
        let mut inventory = Inventory::default();
        inventory.rows = Some(before.rows.values().sum());
        inventory.bytes = self.bytes()?;
        facts.inventories = vec![inventory];
        self.more_marks()?;

        let timeline = facts.timeline.insert(Timeline::start(self.context.clock, StepName::Detect));
        let mut struck = match self.scenario {
            Scenario::DropTable => self.drop_table(&before, server, &shipping, timeline)?,
            Scenario::BadPage => self.bad_page(&before, server, &repository, &shipping, timeline)?,
            _ => self.lose(&before, server, &shipping, timeline)?,
        };
        let disaster_at = timeline.disaster_at();
        let longest = shipping.end();
        facts.worst_case = self.worst_case(longest)?;
        drop(repository);
        let repository = self.open()?;
        facts.served_by = Some((repository.config().id.to_hex(), repository.key_id().to_hex()));
        let plan = self.decide(&repository, &mut struck)?;
        let server_facts = plan.components.first().and_then(|planned| planned.server.clone());
        let server_facts = server_facts.ok_or_else(|| Error::internal("a plan of a server has none"))?;
        facts.recovered = self.recover(&plan, &repository, timeline)?;
        if let Some(error) = facts.recovered.rolled_back.take() {
            return Err(error.context("recover the scratch copy"));
        }
        let name = self.scene.component()?.name.clone();
        timeline.begin(StepName::Start, Some(&name))?;
        let server = self.serve(false)?;
        timeline.begin(StepName::CutOver, None)?;
        let recovered_at = self.context.clock.elapsed();
        timeline.begin(StepName::FirstWrite, None)?;
        self.markers.write_one()?;
        let waterfall = timeline.clone().finish()?;
        self.context.watch.note(&Note::FirstWrite { after: waterfall.total() });
        facts.waterfall = Some(waterfall);
        facts.marks = vec![self.markers.count(&name, disaster_at, recovered_at)?];
        self.markers.stop();
        self.load.stop();
        let rows = tables::rows(&self.address, &server_facts, self.context.interrupt)?;
        if self.scenario == Scenario::DropTable {
            struck.found.push(self.nothing_later()?);
        }
        if let Some(component) = facts.recovered.components.first_mut() {
            component.checked.rows = Some(rows.values().sum());
            component.checked.checks.push(compare(&before.rows, &rows));
            component.checked.checks.append(&mut struck.found);
        }
        let bench = controls::Bench {
            scene: self.scene,
            serve: self.serving(),
            facts: &server_facts,
            address: &self.address,
            middle: &before.middle,
            context: self.context,
        };
        let snapshot = facts.recovered.components.first().map(|it| it.snapshot);
        facts.controls = bench.run(server, snapshot, &mut facts.not_proven)?;
        Ok(())
    }

    fn more_marks(&self) -> Result<()> {
        self.markers.wait_for(self.context.marks, MARKS_LIMIT, self.context.interrupt)
    }

    fn open(&self) -> Result<Repository> {
        let address = address_of(&self.scene.repository_dir)?;
        Ok(open_address(&address, &self.scene.password, false)?.repository)
    }

    fn try_back_up(&self, repository: &Repository) -> Result<ComponentBackup> {
        let progress = Progress::default();
        let component = self.scene.component()?;
        self.context
            .interrupt
            .during(&progress, || backup::backup(&self.scene.manifest, component, repository, &progress))
    }

    fn back_up(&self, repository: &Repository) -> Result<ComponentBackup> {
        let done = self.try_back_up(repository)?;
        complete(&done, self.context)?;
        Ok(done)
    }

    /// Finishes three segments, one after the other, with marks in each, and waits until they are in the repository: so that there
    /// is one in the middle. Then counts.
    fn before(&self, shipping: &Shipping) -> Result<Before> {
        self.note("ship some WAL, and count what is there");
        let mut middle = String::new();
        for number in 0..3 {
            self.more_marks()?;
            let switched = self.switch()?;
            if number == 1 {
                middle.clone_from(&switched.segment);
            }
            if number == 2 {
                shipping.wait(switched.until, &switched.segment, self.context.interrupt)?;
            }
        }
        let rows = tables::rows(&self.address, &self.scene.facts, self.context.interrupt)?;
        Ok(Before { rows, middle })
    }

    /// Finishes the current segment.
    fn switch(&self) -> Result<Switched> {
        let rows = tables::connect(&self.address)?
            .query("SELECT lsn AS until, pg_walfile_name(lsn) AS segment FROM pg_switch_wal() AS lsn")?;
        let row = rows.one()?;
        Ok(Switched { until: row.lsn("until")?, segment: row.text("segment")?.to_owned() })
    }

    fn bytes(&self) -> Result<u64> {
        let rows = tables::connect(&self.address)?
            .query("SELECT sum(pg_database_size(oid))::bigint AS bytes FROM pg_database")?;
        rows.one()?.value("bytes")
    }

    /// What a disaster could cost at the worst moment, with WAL on its way.
    fn worst_case(&self, longest: Duration) -> Result<Option<Seconds>> {
        Ok(match self.scene.component()?.wal.mode {
            WalMode::Stream | WalMode::Synchronous => Some(Seconds::from_duration(longest)),
            // A segment that is never finished waits for the next backup, as without any archive.
            WalMode::Archive if self.archive_timeout_seconds == 0 => None,
            WalMode::Archive => {
                let timeout = Duration::from_secs(self.archive_timeout_seconds);
                Some(Seconds::from_duration(timeout + longest))
            }
        })
    }

    /// The server is killed while it writes, and its data are removed; before that, in one scenario, WAL from the repository.
    fn lose(
        &self,
        before: &Before,
        server: Instance,
        shipping: &Shipping,
        timeline: &mut Timeline,
    ) -> Result<Struck> {
        let mut what = "server killed under load, data directory lost".to_owned();
        if self.scenario == Scenario::WalGap {
            controls::remove_segment(&self.scene.repository_dir, &before.middle)?;
            what = format!("segment `{}` lost from the archive; {what}", before.middle);
        }
        shipping.cut();
        server.kill()?;
        self.remove(&self.scene.data)?;
        self.scene.spaces.iter().try_for_each(|space| self.remove(space))?;
        // What waited there is lost with the host; an `archive_command` that was left behind ends with it.
        self.remove(&self.spool)?;
        self.context.watch.note(&Note::Disaster { what });
        self.detect(timeline, || tables::connect(&self.address).err().map(|error| error.to_string()))?;
        Ok(Struck { goal: Goal::default(), found: Vec::new() })
    }

    /// The largest table is dropped, and writes go on. The server is stopped when that is noticed.
    fn drop_table(
        &self,
        before: &Before,
        server: Instance,
        shipping: &Shipping,
        timeline: &mut Timeline,
    ) -> Result<Struck> {
        let table = tables::largest(&before.rows, self.address.database())?;
        self.markers.close(Which::All);
        self.load.close();
        let mut connection = tables::connect(&self.address)?;
        connection.execute("BEGIN")?;
        let rows = connection.query("SELECT pg_current_xact_id()::text AS id")?;
        let transaction: u64 = rows.one()?.value("id")?;
        connection.execute(&format!("DROP TABLE {table} CASCADE"))?;
        connection.execute("COMMIT")?;
        // The disaster is the commit; the marks are held back since a moment before.
        *timeline = Timeline::start(self.context.clock, StepName::Detect);
        let later = format!("{}-later", self.run);
        connection.execute(&tables::insert(&later))?;
        self.context.watch.note(&Note::Disaster { what: format!("table {table} dropped") });
        self.detect(timeline, || {
            let look = |connection: &mut retoma_sources::postgres::wire::Connection| {
                connection.query(&format!("SELECT 1 FROM {table} LIMIT 1")).map(drop)
            };
            tables::connect(&self.address)
                .and_then(|mut it| look(&mut it))
                .err()
                .map(|error| error.to_string())
        })?;
        let switched = self.switch()?;
        shipping.wait(switched.until, &switched.segment, self.context.interrupt)?;
        // Its last WAL is shipped too: it waits for that.
        server.stop()?;
        shipping.cut();
        let target = Target::Transaction(transaction);
        Ok(Struck { goal: Goal { target, inclusive: false, ..Goal::default() }, found: Vec::new() })
    }

    /// Nothing that was written after the drop may be there.
    fn nothing_later(&self) -> Result<CheckResult> {
        let count =
            format!("SELECT count(*) AS rows FROM {} WHERE run = '{}-later'", tables::LOAD_TABLE, self.run);
        let rows = tables::connect(&self.address)?.query(&count)?;
        let found = rows.one()?.text("rows")?.to_owned();
        Ok(CheckResult::ran("rows of what was written after the drop", found == "0", "0", &found))
    }

    /// A page of the largest table goes bad on disk, and the next backup names it. What is in the repository is whole.
    fn bad_page(
        &self,
        before: &Before,
        server: Instance,
        repository: &Repository,
        shipping: &Shipping,
        timeline: &mut Timeline,
    ) -> Result<Struck> {
        if !self.scene.facts.server.data_checksums {
            let message = "the server has no data checksums: nobody can tell a bad page from a good one";
            return Err(Error::new(ErrorKind::Unsupported, codes::DRILL_UNSUITED, message)
                .with_hint("turn them on while it is stopped: `pg_checksums --enable`"));
        }
        let table = tables::largest(&before.rows, self.address.database())?;
        let mut connection = tables::connect(&self.address)?;
        connection.execute("CHECKPOINT")?;
        let rows = connection.query(&format!("SELECT pg_relation_filepath('{table}') AS path"))?;
        let path = self.scene.data.join(rows.one()?.text("path")?);
        flip_in_page(&path)?;
        *timeline = Timeline::start(self.context.clock, StepName::Detect);
        let what = format!("a page of {table} is bad on disk");
        self.context.watch.note(&Note::Disaster { what });
        let noticed = self.try_back_up(repository)?;
        let error = noticed.summary.unreadable.first().map(|it| it.error.to_string()).unwrap_or_default();
        let code = noticed.summary.unreadable.first().map(|it| it.error.code());
        let found = CheckResult::ran(
            "a backup of the damaged server names the page",
            code == Some(codes::POSTGRES_BAD_PAGE),
            codes::POSTGRES_BAD_PAGE.as_str(),
            code.map_or("nothing", |code| code.as_str()),
        );
        let saw = if error.is_empty() { "nothing was noticed".to_owned() } else { error };
        self.context.watch.note(&Note::Detected { after: self.since(timeline), saw });
        timeline.begin(StepName::Decide, None)?;
        self.markers.close(Which::All);
        self.load.close();
        let switched = self.switch()?;
        shipping.wait(switched.until, &switched.segment, self.context.interrupt)?;
        // Its last WAL is shipped too: it waits for that.
        server.stop()?;
        shipping.cut();
        Ok(Struck { goal: Goal::default(), found: vec![found] })
    }

    fn since(&self, timeline: &Timeline) -> Duration {
        self.context.clock.elapsed().saturating_sub(timeline.disaster_at())
    }

    /// Looks until something is wrong, twice in a row; then it is decided.
    fn detect(&self, timeline: &mut Timeline, look: impl Fn() -> Option<String>) -> Result<()> {
        let saw = noticed(self.context, look)?;
        self.context.watch.note(&Note::Detected { after: self.since(timeline), saw });
        timeline.begin(StepName::Decide, None)?;
        self.markers.close(Which::All);
        self.load.close();
        Ok(())
    }

    fn plan(&self, repository: &Repository, goal: Goal) -> Result<Plan> {
        plan(self.scene, repository, goal)
    }

    /// What is recovered. Where WAL is missing in the middle that has to be said, and what lies before it comes back.
    fn decide(&self, repository: &Repository, struck: &mut Struck) -> Result<Plan> {
        let plan = self.plan(repository, struck.goal.clone());
        if self.scenario != Scenario::WalGap {
            return plan;
        }
        let code = plan.as_ref().err().map(Error::code);
        struck.found.push(CheckResult::ran(
            "recovery behind missing WAL is refused",
            code == Some(codes::WAL_MISSING),
            codes::WAL_MISSING.as_str(),
            code.map_or("accepted", |code| code.as_str()),
        ));
        let known = wal_check::check(repository, Some(&self.scene.component()?.name))?;
        let windows = known.iter().flat_map(wal_check::ServerWal::windows);
        let until = windows.last().map(|window| window.until);
        let until = until.ok_or_else(|| Error::internal("nothing can be recovered"))?;
        let goal = Goal { target: Target::Lsn(until), inclusive: false, ..Goal::default() };
        self.plan(repository, goal)
    }

    fn recover(
        &self,
        plan: &Plan,
        repository: &Repository,
        timeline: &mut Timeline,
    ) -> Result<recover::Recovered> {
        let log = self.scene.scratch.join("service.log");
        let options = recover::Options {
            supervisor: self.context.supervisor,
            starts_service: false,
            log: &log,
            keep_previous: false,
            runs_stop: false,
        };
        recover::apply(plan, repository, &options, timeline, self.context.watch, self.context.interrupt)
    }

    fn remove(&self, data: &Path) -> Result<()> {
        if !data.starts_with(&self.scene.scratch) {
            return Err(Error::internal(format!("`{}` is not the drill's", data.display())));
        }
        let mut last = None;
        let gone = self.context.interrupt.wait_for(REMOVE_LIMIT, || {
            match std::fs::remove_dir_all(data) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => last = Some(error),
                _ => return Ok(Some(())),
            }
            Ok(None)
        })?;
        gone.ok_or_else(|| Error::io(data.display(), last.unwrap_or_else(|| std::io::Error::other("stays"))))
    }
}

/// Compares tables with what was counted right before the disaster.
fn compare(before: &Rows, after: &Rows) -> CheckResult {
    let total = |rows: &Rows| {
        let tables = retoma_core::units::counted(rows.len(), "table", "tables");
        format!("{} rows in {tables}", rows.values().sum::<u64>())
    };
    let mut check = CheckResult::ran(
        "rows against the server before the disaster",
        before == after,
        &total(before),
        &total(after),
    );
    if let Some(((database, table), rows)) = before.iter().find(|(key, rows)| after.get(*key) != Some(rows)) {
        let now = after.get(&(database.clone(), table.clone())).map_or("none".to_owned(), u64::to_string);
        check.detail = format!("`{table}` of `{database}` had {rows} rows, and has {now}");
    }
    check
}

/// Flips a byte in the first page of a file.
pub(super) fn flip_in_page(path: &Path) -> Result<()> {
    let flip = || {
        let file = std::fs::File::options().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, PAGE_BYTES - 100)?;
        file.write_all_at(&[byte[0] ^ 0xff], PAGE_BYTES - 100)?;
        file.sync_all()
    };
    flip().map_err(|error| Error::io(path.display(), error))
}

/// A plan of the scratch copy's recovery in place: never of anything else.
pub(super) fn plan(scene: &Scene, repository: &Repository, goal: Goal) -> Result<Plan> {
    let manifest = Some((&scene.manifest, scene.text.as_str()));
    let request = Request { goal, manifest, ..Request::newest(repository, Place::InPlace) };
    let plan = recover::plan(&request)?;
    let all = plan.components.iter();
    let mut foreign = all.flat_map(|planned| {
        let data = std::iter::once(planned.to.as_path()).filter(|to| *to != scene.data);
        data.chain(planned.spaces().filter(|to| !scene.spaces.iter().any(|own| own == to)))
    });
    if let Some(elsewhere) = foreign.next() {
        let message = format!("`{}` is not a folder of the drill's own", elsewhere.display());
        return Err(Error::new(ErrorKind::Conflict, codes::TARGET_IS_LIVE, message).with_hint(
            "a drill destroys nothing but its own scratch copy; this is a bug in Retoma, please report it",
        ));
    }
    drop(foreign);
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::drill::CheckOutcome;

    fn rows(counts: &[(&str, u64)]) -> Rows {
        counts.iter().map(|(table, rows)| (("db".to_owned(), (*table).to_owned()), *rows)).collect()
    }

    #[test]
    fn a_row_too_few_and_a_table_too_many_are_found() {
        let before = rows(&[("a", 3), ("b", 4)]);
        assert_eq!(compare(&before, &before).outcome, CheckOutcome::Passed);
        let fewer = compare(&before, &rows(&[("a", 3), ("b", 3)]));
        assert_eq!(fewer.outcome, CheckOutcome::Failed);
        assert_eq!(fewer.detail, "`b` of `db` had 4 rows, and has 3");
        assert_eq!(compare(&before, &rows(&[("a", 3)])).detail, "`b` of `db` had 4 rows, and has none");
        // The sum is the same, and the tables are not.
        assert_eq!(compare(&before, &rows(&[("a", 4), ("b", 3)])).outcome, CheckOutcome::Failed);
        assert_eq!(compare(&before, &rows(&[("a", 3), ("b", 4), ("c", 0)])).outcome, CheckOutcome::Failed);
    }

    #[test]
    fn one_byte_of_the_first_page_is_flipped() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relation");
        std::fs::write(&file, vec![7; 16384]).unwrap();
        flip_in_page(&file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let changed: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 7).collect();
        assert_eq!(changed, [8092]);
        std::fs::write(&file, "short").unwrap();
        flip_in_page(&file).unwrap_err();
    }
}
