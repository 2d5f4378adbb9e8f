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
