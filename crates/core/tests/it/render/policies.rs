//! Rights in buckets, rendered from a manifest.

use retoma_core::manifest::{Manifest, Origin, parse};
use retoma_core::render::policies;

fn manifest(repositories: &str) -> Manifest {
    let text = format!(
        "version = 1\n[service]\nname = \"s\"\n{repositories}\n[[component]]\nname = \"models\"\nkind = \"files\"\ntier = \"high\"\npath = \"/m\"\n"
    );
    parse(&text, &Origin { file_name: "retoma.toml".to_owned(), dir: "/".into() }).unwrap()
}

#[test]
fn each_role_gets_what_it_needs_and_nothing_else() {
    let manifest = manifest(
        "[[repository]]\nname = \"far-1\"\nurl = \"s3://backups/zone/one\"\npassword = \"env:P\"\nlock_days = 14\n\
         [[repository]]\nname = \"near\"\nurl = \"file:///r\"\npassword = \"env:P\"\n\
         [[repository]]\nname = \"whole\"\nurl = \"s3://own\"\npassword = \"env:P\"\n",
    );
    let files = policies::files(manifest.repositories.iter());
    let text: Vec<String> = files.iter().map(|file| format!("# {}\n{}", file.name, file.text)).collect();
    let text = text.concat();
    insta::assert_snapshot!("policies", text);
    let without: Vec<_> = policies::without(&manifest).map(|it| it.name.as_str()).collect();
    assert_eq!(without, ["near"]);
}

#[test]
fn repositories_of_one_bucket_share_its_policy() {
    let two = "[[repository]]\nname = \"a\"\nurl = \"s3://b/x\"\npassword = \"env:P\"\n[[repository]]\nname = \"c\"\nurl = \"s3://b/y\"\npassword = \"env:P\"\n";
    let manifest = manifest(two);
    let files = policies::files(manifest.repositories.iter());
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["s3-b-lifecycle.json", "s3-b-policy.json"]);
    let policy: serde_json::Value = serde_json::from_str(&files[1].text).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    // Nobody of one zone is named where the other one's objects are.
    for statement in statements.iter().filter(|it| it["Effect"] == "Allow") {
        let (who, what) = (
            statement["Principal"].to_string(),
            format!("{}{}", statement["Resource"], statement["Condition"]),
        );
        let (is_a, is_c) = (who.contains("retoma-a-"), who.contains("retoma-c-"));
        assert!(is_a != is_c, "{statement:#}");
        let other = if is_a { "y/" } else { "x/" };
        assert!(!what.contains(other), "{statement:#}");
    }
}

#[test]
fn google_and_azure_get_files_and_commands_that_bound_each_role_to_its_prefix() {
    let manifest = manifest(
        "[[repository]]\nname = \"far\"\nurl = \"gs://backups/zone/one\"\npassword = \"env:P\"\nlock_days = 14\n\
         [[repository]]\nname = \"away\"\nurl = \"az://vault/zone/two\"\npassword = \"env:P\"\nlock_days = 7\n\
         [[repository]]\nname = \"whole\"\nurl = \"az://own\"\npassword = \"env:P\"\n",
    );
    let files = policies::files(manifest.repositories.iter());
    let text: Vec<String> = files.iter().map(|file| format!("# {}\n{}", file.name, file.text)).collect();
    insta::assert_snapshot!("policies_elsewhere", text.concat());
    assert_eq!(policies::without(&manifest).count(), 0);
    for file in files.iter().filter(|file| file.name.rsplit('.').next() == Some("json")) {
        serde_json::from_str::<serde_json::Value>(&file.text).unwrap();
    }
    // Every file that a command reads is there, and every text says that nothing was run.
    for readme in files.iter().filter(|file| file.name.ends_with("README.txt")) {
        assert!(readme.text.starts_with("NOT RUN"), "{}", readme.name);
        let words = readme.text.split(|c: char| c.is_whitespace() || "=@\"()".contains(c));
        for word in words.filter(|word| {
            word.rsplit_once('.').is_some_and(|(_, end)| end == "json") || word.ends_with("-condition.txt")
        }) {
            assert!(files.iter().any(|file| file.name == word), "{word}");
        }
    }
}

/// A writer's right to delete is for locks alone, and no role reaches beyond its own prefix.
#[test]
fn a_role_elsewhere_names_no_other_zone() {
    for scheme in ["gs", "az"] {
        let two = format!(
            "[[repository]]\nname = \"a\"\nurl = \"{scheme}://b/x\"\npassword = \"env:P\"\n\
             [[repository]]\nname = \"c\"\nurl = \"{scheme}://b/y\"\npassword = \"env:P\"\n"
        );
        let manifest = manifest(&two);
        let files = policies::files(manifest.repositories.iter());
        let bounds = files.iter().filter(|file| {
            file.name.ends_with("-below.json")
                || file.name.ends_with("-locks.json")
                || file.name.ends_with("condition.txt")
        });
        let bounds: Vec<_> = bounds.collect();
        assert!(bounds.len() >= 4, "{scheme}");
        for file in bounds {
            let (own, other) = if file.name.contains("-a-") { ("x/", "y/") } else { ("y/", "x/") };
            assert!(file.text.contains(own) && !file.text.contains(other), "{}: {}", file.name, file.text);
        }
        let unlock =
            files.iter().find(|it| it.name.contains("-a-locks") || it.name.contains("-a-writer-condition"));
        assert!(unlock.unwrap().text.contains("x/locks/"), "{scheme}");
    }
}

/// Addresses are not looked at by a store here, and must not end a text in an expression or a command.
#[test]
fn an_address_that_no_store_takes_is_left_out() {
    for url in ["gs://b/x'||true||'", "az://b/$(id)", "s3://b/x*", "gs://..", "az://a;b/x"] {
        let manifest =
            manifest(&format!("[[repository]]\nname = \"a\"\nurl = \"{url}\"\npassword = \"env:P\"\n"));
        assert_eq!(policies::files(manifest.repositories.iter()), [], "{url}");
        assert_eq!(policies::without(&manifest).count(), 1, "{url}");
    }
}
