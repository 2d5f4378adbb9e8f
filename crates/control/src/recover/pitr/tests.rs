use super::*;
use retoma_core::manifest::{Manifest, Origin, parse};
use std::path::PathBuf;

fn manifest() -> Manifest {
    let text = "version = 1\n[service]\nname = \"shop\"\n\
        [[repository]]\nname = \"local\"\nurl = \"file:///srv/repository\"\npassword = \"env:UNUSED\"\n\
        [[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"postgres://localhost/shop\"\n\
        [[component]]\nname = \"models\"\nkind = \"files\"\ntier = \"high\"\npath = \"/srv/models\"\n";
    parse(text, &Origin { file_name: "retoma.toml".to_owned(), dir: PathBuf::from("/srv") }).unwrap()
}

#[test]
fn what_only_a_server_knows_is_for_one_server_alone() {
    let manifest = manifest();
    let [db, models] = &manifest.components[..] else { panic!("{manifest:?}") };
    let fits = |goal: &Goal, snapshot: Option<&str>, wanted: &[&Component]| {
        check_fits(goal, snapshot, wanted).map_err(|error| error.code())
    };
    let goal = |target| Goal { target, ..Goal::default() };
    let time = Target::Time("2026-11-22T10:00:00Z".parse().unwrap());
    for general in [Goal::default(), goal(time.clone())] {
        for wanted in [&[db, models][..], &[models], &[db]] {
            assert_eq!(fits(&general, None, wanted), Ok(()));
        }
        assert_eq!(fits(&general, Some("ab"), &[db]), Ok(()));
        assert_eq!(fits(&general, Some("ab"), &[db, models]), Err(codes::USAGE));
    }
    let special = [
        goal(Target::Lsn(Lsn(7))),
        goal(Target::Transaction(7)),
        goal(Target::Name("x".to_owned())),
        Goal { timeline: Some(TimelineId::FIRST), ..Goal::default() },
        Goal { inclusive: false, ..goal(time) },
    ];
    for special in special {
        assert_eq!(fits(&special, None, &[db]), Ok(()));
        for wanted in [&[db, models][..], &[models], &[db, db], &[]] {
            assert_eq!(fits(&special, None, wanted), Err(codes::USAGE));
        }
    }
    assert_eq!(fits(&Goal { inclusive: false, ..Goal::default() }, None, &[db]), Err(codes::USAGE));
}

#[test]
fn the_server_is_told_its_timeline_by_number_or_to_stay() {
    let goal = Goal { inclusive: false, ..Goal::default() };
    let two = TimelineId::new(2).unwrap();
    let choice =
        Choice { candidate: 0, timeline: two, target: Target::Transaction(7), until: Lsn(9), gap: None };
    let along = told(&choice, &goal, TimelineId::FIRST);
    assert_eq!((along.along, along.inclusive), (Along::Timeline(two), false));
    assert_eq!(along.target, source::Target::Transaction(7));
    assert_eq!(told(&choice, &goal, two).along, Along::Backup);
}

#[test]
fn a_time_before_a_new_server_is_looked_for_on_the_one_before_it() {
    let facts = |server: u64, second: i64| WalFacts {
        id: SnapshotId::of(&second.to_be_bytes()),
        component: "db".to_owned(),
        time: retoma_repo::format::time::Time(jiff::Timestamp::UNIX_EPOCH),
        system_identifier: server,
        size: SegmentSize::default(),
        timeline: TimelineId::FIRST,
        start: Lsn(1),
        stop: Lsn(2),
        stopped: jiff::Timestamp::from_second(second).unwrap(),
        ended: None,
        tablespaces: Vec::new(),
        is_complete: true,
    };
    let all = [facts(7, 10), facts(7, 20), facts(8, 30)];
    let own: Vec<&WalFacts> = all.iter().collect();
    let server = |target| which_server(&own, &Goal { target, ..Goal::default() }).unwrap().0;
    let at = |second| Target::Time(jiff::Timestamp::from_second(second).unwrap());
    assert_eq!(server(Target::Latest), 8);
    assert_eq!([30, 29, 10].map(|second| server(at(second))), [8, 7, 7]);
    // Before all of them: refused by what the newest has.
    assert_eq!(server(at(9)), 8);
    assert_eq!(which_server(&[], &Goal::default()), None);
}
