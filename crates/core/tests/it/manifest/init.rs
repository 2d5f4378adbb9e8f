//! `init` writes a manifest that is accepted, whatever was found.

use proptest::prelude::*;
use retoma_core::manifest::{
    Component, ComponentKind, Findings, FoundPath, Manifest, Origin, init, parse, render,
};

fn found(path: &str, size_bytes: u64) -> FoundPath {
    FoundPath { path: path.into(), size_bytes }
}

fn parsed(findings: &Findings) -> Result<Manifest, String> {
    let text = init(findings);
    let origin = Origin { file_name: "retoma.toml".into(), dir: findings.dir.clone() };
    match parse(&text, &origin) {
        Ok(manifest) if manifest.warnings.is_empty() => Ok(manifest),
        Ok(manifest) => Err(format!("{text}\n{}", render(&manifest.warnings, "f"))),
        Err(problems) => Err(format!("{text}\n{}", render(&problems, "f"))),
    }
}

fn sample() -> Findings {
    Findings {
        service_name: "MaraBet AI".into(),
        dir: "/srv/marabet".into(),
        repository_dir: "/srv/marabet/data/repository".into(),
        password_file: "/etc/retoma/password".into(),
        sqlite: vec![found("data/app.db", 52 << 20), found("data/old/app.db", 4096)],
        models: vec![found("models", 3 << 30)],
        data: vec![found("data", 60 << 20)],
        configs: vec![found("config.yaml", 812)],
        logs: vec![found("logs", 1 << 20), found("./logs/", 1 << 20)],
        postgres_variables: vec!["DATABASE_URL".into(), "not a variable".into()],
        redis_variables: vec!["REDIS_URL".into()],
    }
}

#[test]
fn a_folder_with_everything_gives_a_readable_manifest() {
    insta::assert_snapshot!(init(&sample()));
    let manifest = parsed(&sample()).unwrap();
    let kinds: Vec<_> = manifest.components.iter().map(Component::kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == ComponentKind::Sqlite).count(), 2);
    assert_eq!(kinds.len(), 8, "the second mention of the logs is left out");
}

#[test]
fn an_empty_folder_gives_a_manifest_too() {
    let findings =
        Findings { dir: "/srv/x".into(), repository_dir: "/srv/x/backup".into(), ..Findings::default() };
    let manifest = parsed(&findings).unwrap();
    assert_eq!(manifest.components.len(), 1);
    assert_eq!(manifest.service.name, "app");
}

#[test]
fn a_repository_in_the_folder_itself_is_not_backed_up_into_itself() {
    let findings = Findings { dir: "/srv/x".into(), repository_dir: "/srv/x".into(), ..Findings::default() };
    assert_eq!(parsed(&findings).unwrap().components[0].path(), Some("/srv/x/data".as_ref()));
}

fn any_path() -> impl Strategy<Value = FoundPath> {
    let path = prop_oneof![
        "(\\./|/|\\.\\./|~)?(a|data|models|x y|\\*\\[|é|\\{)(/(a|data|b\"c|b\\\\c|#|all)){0,3}(\\.db)?/?",
        "(.|\n){0,20}",
        "\\PC{0,100}",
    ];
    (path, any::<u64>()).prop_map(|(path, size_bytes)| FoundPath { path, size_bytes })
}

fn any_findings() -> impl Strategy<Value = Findings> {
    let paths = || prop::collection::vec(any_path(), 0..4);
    let names = || prop::collection::vec("[A-Z_]{1,8}|.{0,8}", 0..3);
    let dir = prop::sample::select(vec!["/", "/a", "/a/data", "/srv/x y"]);
    let repository = "(.|\n){0,10}|/(a|data|models)(/(a|data|repository|\\*)){0,3}";
    let facts = (paths(), paths(), paths(), paths(), paths(), names(), names());
    ("(.|\n){0,80}", dir, repository, "(.|\n){0,20}", facts).prop_map(
        |(service_name, dir, repository_dir, password_file, facts)| {
            let (sqlite, models, data, configs, logs, postgres_variables, redis_variables) = facts;
            Findings {
                service_name,
                dir: dir.into(),
                repository_dir,
                password_file,
                sqlite,
                models,
                data,
                configs,
                logs,
                postgres_variables,
                redis_variables,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_findings_give_a_manifest_without_problems(findings in any_findings()) {
        if let Err(shown) = parsed(&findings) {
            prop_assert!(false, "{shown}");
        }
    }
}
