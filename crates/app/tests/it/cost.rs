//! `status --cost`: what is counted is what lies there; money only with prices; a repository that is away hides no other.

use crate::kit::{Home, MODELS, Run, tree};

const PRICE: &str =
    "[repository.price]\ngb_month = \"1000000\"\nwrites_1000 = \"0.005\"\nreads_1000 = \"0.0004\"\n";

/// Models in a repository with these lines behind it.
fn home(behind: &str) -> Home {
    let home = Home::with(&format!("{behind}{MODELS}"));
    home.seed_models();
    home.back_up();
    home
}

/// The whole command, without what depends on how deep the folder for temporary files lies.
fn shown(home: &Home, code: i32) -> Run {
    let found = &home.json(&["status", "--cost"], code, "retoma.status/1")["costs"][0];
    let mut run = home.run(&["status", "--cost"]).expect(code);
    run.stdout = run.stdout.replace(&found["requests_per_month"]["reads"].to_string(), "[READS]");
    if let Some(total) = found["cost_per_month"]["total"].as_str() {
        let shown: f64 = total.parse().unwrap();
        run.stdout = run.stdout.replace(&format!("{shown:.2} USD"), "[MONEY] USD");
    }
    run
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

#[test]
fn what_is_counted_is_what_lies_there_and_costs_what_the_prices_say() {
    let home = home(PRICE);
    let document = home.json(&["status", "--cost"], 0, "retoma.status/1");
    let found = &document["costs"][0];
    let there = tree(&home.path("repository"));
    let files = there.iter().filter(|(path, _)| home.path("repository").join(path).is_file());
    let (objects, bytes) = files.fold((0, 0), |(objects, bytes), (_, (_, _, _, contents))| {
        (objects + 1, bytes + contents.len() as u64)
    });
    assert_eq!((&found["objects"], &found["stored_bytes"]), (&objects.into(), &bytes.into()), "{document:#}");
    let money = &found["cost_per_month"];
    let amount = |name: &str| money[name].as_str().unwrap().parse::<f64>().unwrap();
    // A million for each GB: 10^-3 for a byte.
    assert!((amount("storage") - number(bytes) / 1e3).abs() < 1e-6, "{document:#}");
    let requests = |name: &str| number(found["requests_per_month"][name].as_u64().unwrap());
    assert!((amount("writes") - (requests("writes") + requests("lists")) * 0.005 / 1e3).abs() < 1e-8);
    assert!((amount("reads") - requests("reads") * 0.0004 / 1e3).abs() < 1e-8);
    assert!((amount("total") - amount("storage") - amount("writes") - amount("reads")).abs() < 1e-6);
    assert_eq!(money["currency"], "USD");
    // 13 min 30 s between backups, each of which leaves a lock; everything so far was written within a day.
    let locks = 2_592_000_u64.div_ceil(810) + 60 + 5;
    assert_eq!(found["requests_per_month"]["writes"], 30 * objects + locks, "{document:#}");
}

#[test]
fn without_prices_there_are_requests_and_a_hint() {
    let home = home("");
    home.assert_snapshot("status_cost", &shown(&home, 0));
    let document = home.json(&["status", "--cost"], 0, "retoma.status/1");
    assert!(document["costs"][0]["cost_per_month"].is_null() && document["costs"][0]["error"].is_null());
}

#[test]
fn a_repository_that_is_away_is_told_and_the_others_are_counted() {
    let home = Home::with("");
    home.write_private("second-password", "another password");
    home.write_manifest(&format!(
        "{}[[repository]]\nname = \"second\"\nurl = \"file://{}\"\npassword = \"file:second-password\"\n{MODELS}",
        PRICE.replace("1000000", "0.023"),
        home.text_path("elsewhere")
    ));
    home.seed_models();
    home.run(&["backup", "-r", "local"]).expect(0);
    home.assert_snapshot("status_cost_away", &shown(&home, 3));
    let document = home.json(&["status", "--cost"], 3, "retoma.status/1");
    assert_eq!(document["costs"][1]["error"]["code"], "R0201");
    home.run(&["status", "--cost", "-r", "second"]).expect(10);
}
