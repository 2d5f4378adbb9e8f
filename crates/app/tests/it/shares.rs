//! Keys that are split or lie in a file, whole commands.

use crate::kit::Home;
use std::os::unix::fs::PermissionsExt as _;

/// A repository with a snapshot and a key of which 2 of 3 shares open.
fn with_shares() -> Home {
    let home = Home::backed_up();
    home.run(&["key", "add", "--shares", "3", "--threshold", "2", "-o", "shares"]).expect(0);
    home
}

fn share(number: u8) -> String {
    format!("shares/local-share-{number}-of-3.txt")
}

/// `--share` for each number, after `verb`.
fn opened<'a>(verb: &[&'a str], files: &'a [String]) -> Vec<&'a str> {
    let mut arguments = verb.to_vec();
    for file in files {
        arguments.extend(["--share", file.as_str()]);
    }
    arguments
}

#[test]
fn the_password_is_gone_and_any_two_shares_of_three_bring_the_files_back() {
    let home = with_shares();
    std::fs::remove_file(home.path("password")).unwrap();
    home.run(&["snapshots"]).expect(1);
    let url = format!("file://{}", home.text_path("repository"));
    for (at, pair) in [[1, 2], [1, 3], [3, 2]].into_iter().enumerate() {
        let files = pair.map(share);
        assert_eq!(
            home.json(&opened(&["snapshots"], &files), 0, "retoma.snapshots/1")["snapshots"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        let to = format!("back-{at}");
        home.run(&opened(&["recover", "--repository-url", &url, "--to", &to], &files)).expect(0);
        let back = home.path(&to).join(home.path("models").strip_prefix("/").unwrap());
        assert_eq!(
            std::fs::read(back.join("winner.f32")).unwrap(),
            std::fs::read(home.path("models/winner.f32")).unwrap()
        );
    }
    // And a new password, for restic too.
    home.write_private("new", "a second password");
    let files = [1, 2].map(share);
    home.run(&opened(&["key", "add", "--new-password", "file:new"], &files)).expect(0);
    home.write_private("password", "a second password");
    home.run(&["snapshots"]).expect(0);
}

#[test]
fn what_is_wrong_with_shares_is_said() {
    let home = with_shares();
    let run = |verb: &[&str], files: &[String]| home.run(&opened(verb, files));
    home.assert_snapshot("shares_few", &run(&["snapshots"], &[share(2)]).expect(12));
    let few = run(&["snapshots"], &[share(2), share(2)]).expect(12);
    assert!(few.stderr.contains("error[R0232]"), "the same one twice is one: {}", few.text());

    let text = std::fs::read_to_string(home.path(&share(1))).unwrap();
    let third = text.lines().find(|line| line.starts_with('3')).unwrap();
    let wrong = if third.as_bytes()[3] == b'7' { '8' } else { '7' };
    let typed = text.replacen(third, &format!("{}{wrong}{}", &third[..3], &third[4..]), 1);
    home.write_private("typed", &typed);
    home.assert_snapshot("share_line", &run(&["snapshots"], &["typed".to_owned(), share(2)]).expect(1));

    home.write_private("no-share", "hello\n");
    home.assert_snapshot("share_none", &run(&["snapshots"], &["no-share".to_owned()]).expect(1));

    // Shares of another repository: enough of them, and they open nothing here.
    let other = with_shares();
    for number in [1, 2] {
        let text = std::fs::read_to_string(other.path(&share(number))).unwrap();
        home.write_private(&format!("other-{number}"), &text);
    }
    let others = ["other-1".to_owned(), "other-2".to_owned()];
    let refused = run(&["snapshots"], &others).expect(12);
    assert!(
        refused.stderr.contains("error[R0202]") && refused.stderr.contains("of another repository"),
        "{}",
        refused.text()
    );
    let mixed = run(&["snapshots"], &[share(1), "other-2".to_owned()]).expect(12);
    assert!(mixed.stderr.contains("error[R0232]"), "{}", mixed.text());

    // A file that everybody may read is no secret.
    std::fs::set_permissions(home.path(&share(1)), std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = run(&["snapshots"], &[share(1), share(2)]).expect(1);
    assert!(open.stderr.contains("error[R0102]"), "{}", open.text());
}

#[test]
fn a_share_that_was_altered_with_its_checksums_is_named() {
    use retoma_core::share::Share;
    let home = with_shares();
    let text = std::fs::read_to_string(home.path(&share(1))).unwrap();
    let whole = Share::parse(&text).unwrap();
    let mut value = *whole.value();
    value[5] ^= 1;
    let altered = Share::new(whole.set(), (2, 3), 1, value).unwrap();
    home.write_private("altered", &altered.code());
    let files = ["altered".to_owned(), share(2)];
    let refused = home.run(&opened(&["snapshots"], &files)).expect(12);
    assert!(
        refused.stderr.contains("error[R0233]") && refused.stderr.contains("share 1 of set"),
        "{}",
        refused.text()
    );
    // With one to spare the altered one is passed over; without the record it is still no wrong key.
    home.run(&opened(&["snapshots"], &["altered".to_owned(), share(2), share(3)])).expect(0);
    std::fs::remove_dir_all(home.path("repository/recipients")).unwrap();
    let refused = home.run(&opened(&["snapshots"], &files)).expect(12);
    assert!(
        refused.stderr.contains("error[R0233]") && refused.stderr.contains("do not belong together"),
        "{}",
        refused.text()
    );
    home.run(&opened(&["snapshots"], &[share(1), share(3)])).expect(0);
}

#[test]
fn what_is_handed_out_is_private_and_is_never_written_over() {
    let home = with_shares();
    let folder = std::fs::metadata(home.path("shares")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(home.path("shares")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expected: Vec<String> =
        (1..=3).flat_map(|n| ["html", "txt"].map(|end| format!("local-share-{n}-of-3.{end}"))).collect();
    assert_eq!(names, expected);
    let page = std::fs::read_to_string(home.path("shares/local-share-2-of-3.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Share 2 of 3: marabet"));
    let again = home.run(&["key", "add", "--shares", "3", "--threshold", "2", "-o", "shares"]).expect(1);
    home.assert_snapshot("shares_there", &again);
    let keys = home.json(&["key", "list"], 0, "retoma.key/1");
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&keys["keys"][1]["kind"], &keys["keys"][1]["shares"]["threshold"]),
        (&"shares".into(), &2.into())
    );
    home.assert_snapshot(
        "shares_impossible",
        &home.run(&["key", "add", "--shares", "2", "--threshold", "3", "-o", "other"]).expect(1),
    );
    home.run(&["key", "add", "--shares", "2", "-o", "other"]).expect(1);
    home.run(&["key", "add", "--key-file"]).expect(1);
}

#[test]
fn a_key_file_opens_as_a_password_does_and_is_listed_as_one() {
    let home = Home::backed_up();
    let added = home.json(&["key", "add", "--key-file", "-o", "key"], 0, "retoma.key/1");
    assert_eq!(added["files"][0], "key");
    assert_eq!(std::fs::metadata(home.path("key")).unwrap().permissions().mode() & 0o777, 0o600);
    home.run(&["key", "add", "--key-file", "-o", "key"]).expect(1);
    let key = std::fs::read_to_string(home.path("key")).unwrap();
    home.write_private("password", &key);
    let keys = home.json(&["key", "list"], 0, "retoma.key/1");
    assert_eq!((&keys["keys"][1]["kind"], &keys["keys"][1]["current"]), (&"key-file".into(), &true.into()));
}

#[test]
fn a_rotation_leaves_the_data_and_takes_the_old_way_in_away() {
    let home = with_shares();
    let keys = home.json(&["key", "list"], 0, "retoma.key/1");
    let split = keys["keys"][1]["id"].as_str().unwrap().to_owned();
    home.run(&["key", "rotate", &split, "--shares", "5", "--threshold", "3", "-o", "new-shares"]).expect(1);
    let packs = || std::fs::read_dir(home.path("repository/data")).unwrap().count();
    let before = packs();
    let rotated = home.json(
        &["key", "rotate", &split, "--shares", "5", "--threshold", "3", "-o", "new-shares", "--yes"],
        0,
        "retoma.key/1",
    );
    assert_eq!((&rotated["removed"], packs()), (&split.as_str().into(), before));
    let old = [1, 2].map(share);
    let refused = home.run(&opened(&["snapshots"], &old)).expect(12);
    assert!(refused.stderr.contains("error[R0202]"), "{}", refused.text());
    let new = [1, 3, 5].map(|number| format!("new-shares/local-share-{number}-of-5.txt"));
    home.run(&opened(&["snapshots"], &new)).expect(0);
    let count = |folder: &str| std::fs::read_dir(home.path("repository").join(folder)).unwrap().count();
    assert_eq!((count("keys"), count("recipients")), (2, 1));

    // The key in use gives way to a new password, and is the only one that does.
    let own = keys["keys"][0]["id"].as_str().unwrap();
    home.write_private("new", "a second password");
    let said = home.run(&["key", "rotate", own, "--new-password", "file:new", "--yes"]).expect(0);
    assert!(said.stderr.contains("must name another now"), "{}", said.text());
    home.run(&["snapshots"]).expect(12);
    home.write_private("password", "a second password");
    home.run(&["snapshots"]).expect(0);
    home.run(&opened(&["snapshots"], &new)).expect(0);

    let split = rotated["added"].as_str().unwrap();
    home.run(&["key", "remove", split, "--yes"]).expect(0);
    assert_eq!((count("keys"), count("recipients")), (1, 0));
}

#[test]
fn key_check_says_where_one_hand_holds_all() {
    let home = Home::backed_up();
    let codes = |files: &[String], exit: u8| -> Vec<String> {
        let value = home.json(&opened(&["key", "check"], files), exit.into(), "retoma.key/1");
        value["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["code"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(codes(&[], 4), ["single_key", "only_this_host"]);
    home.assert_snapshot("key_check_single", &home.run(&["key", "check"]).expect(4));
    home.run(&["key", "add", "--key-file", "-o", "key"]).expect(0);
    assert_eq!(codes(&[], 4), ["none_known_elsewhere", "one_holder_after_the_host"]);
    home.run(&["key", "add", "--shares", "3", "--threshold", "2", "-o", "shares"]).expect(0);
    assert_eq!(codes(&[], 0), Vec::<String>::new());
    // Also when the shares open: then the manifest's password is looked for.
    assert_eq!(codes(&[1, 2].map(share), 0), Vec::<String>::new());
    home.run(&["key", "add", "--shares", "2", "--threshold", "1", "-o", "loose"]).expect(0);
    home.run(&["key", "add", "--shares", "2", "--threshold", "2", "-o", "tight"]).expect(0);
    assert_eq!(codes(&[], 4), ["threshold_one", "all_shares_needed"]);
    home.assert_snapshot("key_check", &home.run(&["key", "check"]).expect(4));
}

#[test]
fn a_recipient_that_is_damaged_or_of_nothing_stands_in_nobodys_way() {
    let home = with_shares();
    let keys = home.json(&["key", "list"], 0, "retoma.key/1");
    let split = keys["keys"][1]["id"].as_str().unwrap().to_owned();
    std::fs::remove_file(home.path("repository/keys").join(&split)).unwrap();
    home.write(&format!("repository/recipients/{}", "0".repeat(64)), b"{}");
    let listed = home.run(&["key", "list"]).expect(0);
    assert!(listed.stderr.contains("opens nothing") && listed.stderr.contains("R0204"), "{}", listed.text());
    let verified = home.run(&["verify"]).expect(0);
    assert!(verified.text().contains("recipients/"), "{}", verified.text());
    home.run(&["key", "remove", &split, "--yes"]).expect(0);
    let listed = home.json(&["key", "list"], 0, "retoma.key/1");
    assert_eq!(
        (listed["keys"].as_array().unwrap().len(), listed["of_nothing"].as_array().unwrap().len()),
        (1, 0)
    );
}
