//! Rights in buckets of Google Cloud Storage: conditions for IAM bindings, a lifecycle, and the commands that set them.
//!
//! Not run against the real service: the texts are compared with what its documents say, and with nothing else.

use super::{File, KEPT_DAYS, NOT_RUN, Place, Role, file};
use serde_json::{Value, json};

/// A role of one's own: to lock what one writes, and to lock it for longer. It has no right to take a lock away.
const LOCKING: &str = "retomaLock";
/// A role of one's own: to ask how the bucket is set up.
const LOOKING: &str = "retomaLook";

/// The files for a bucket.
pub(super) fn files(bucket: &str, places: &[Place<'_>]) -> Vec<File> {
    let mut files = vec![file(format!("gs-{bucket}-lifecycle.json"), &lifecycle(places))];
    for place in places {
        let name = &place.repository.name;
        files.push(file(below_name(place), &below(place)));
        files.push(file(
            format!("gs-{bucket}-{name}-locks.json"),
            &condition("locks", &objects(place, "locks/")),
        ));
    }
    files.push(File { name: format!("gs-{bucket}-README.txt"), text: readme(bucket, places) });
    files
}

fn below_name(place: &Place<'_>) -> String {
    format!("gs-{}-{}-below.json", place.bucket, place.repository.name)
}

/// Of objects by their names. The names of bucket and prefix hold nothing that would end the text in it.
fn objects(place: &Place<'_>, folder: &str) -> String {
    format!(
        "resource.name.startsWith('projects/_/buckets/{}/objects/{}{folder}')",
        place.bucket, place.prefix
    )
}

/// Everything of a repository. A listing is asked of the bucket, so it is bound by the prefix that it asks for.
fn below(place: &Place<'_>) -> Value {
    let listing = format!(
        "api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('{}')",
        place.prefix
    );
    condition("below", &format!("{} || {listing}", objects(place, "")))
}

fn condition(title: &str, expression: &str) -> Value {
    json!({ "title": format!("retoma-{title}"), "expression": expression })
}

fn lifecycle(places: &[Place<'_>]) -> Value {
    let mut rules =
        vec![json!({ "action": { "type": "AbortIncompleteMultipartUpload" }, "condition": { "age": 7 } })];
    for place in places {
        let days = place.repository.lock.map_or(KEPT_DAYS, |lock| lock.days);
        let mut condition = json!({ "daysSinceNoncurrentTime": days });
        if !place.prefix.is_empty() {
            condition["matchesPrefix"] = json!([place.prefix]);
        }
        rules.push(json!({ "action": { "type": "Delete" }, "condition": condition }));
    }
    json!({ "lifecycle": { "rule": rules } })
}

fn readme(bucket: &str, places: &[Place<'_>]) -> String {
    let mut text = format!(
        "{NOT_RUN}\n\n\
         Rights in the bucket {bucket} for writer, reader and pruner of each repository. Put your project in for PROJECT, and run\n\
         these commands in this folder as somebody who administers the bucket. Conditions need uniform bucket-level access.\n\n\
         gcloud storage buckets update gs://{bucket} --uniform-bucket-level-access\n\
         gcloud storage buckets update gs://{bucket} --lifecycle-file=gs-{bucket}-lifecycle.json\n"
    );
    if places.iter().any(|place| place.repository.lock.is_some()) {
        text.push_str(&locking(bucket));
    }
    for place in places {
        for role in Role::ALL {
            text.push('\n');
            for line in bindings(place, role) {
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
    let more = format!(
        "\nA writer may add objects, read and list them below its prefix, and delete below locks/. Overwriting takes the right to\n\
         delete at Google, so it can replace nothing. A pruner may delete below its prefix: for good, but what is locked in a bucket\n\
         that keeps versions. Nobody here may take a lock away (storage.objects.overrideUnlockedRetention).\n\n\
         What a pruner's credentials delete can be had back for a while, by who administers the bucket:\n\n\
         gcloud storage buckets update gs://{bucket} --soft-delete-duration={KEPT_DAYS}d\n\n\
         What nobody can delete for a while, with no credentials at all: set lock_days in the manifest, and render these texts again.\n\
         A retention period of the whole bucket is none for Retoma: it holds also for locks/ and marks/, so that prune is refused, and\n\
         it is not renewed, so that what a kept snapshot needs and what is older can be deleted.\n"
    );
    text + &more
}

fn bindings(place: &Place<'_>, role: Role) -> Vec<String> {
    let (bucket, name) = (place.bucket, &place.repository.name);
    let below = below_name(place);
    let locks = format!("gs-{bucket}-{name}-locks.json");
    let roles: &[(&str, &str)] = match role {
        Role::Writer => &[("objectCreator", &below), ("objectViewer", &below), ("objectUser", &locks)],
        Role::Reader => &[("objectViewer", &below)],
        Role::Pruner => &[("objectUser", &below)],
    };
    let binding = |right: &str, condition: &str| {
        format!(
            "gcloud storage buckets add-iam-policy-binding gs://{bucket} \
             --member=serviceAccount:retoma-{name}-{}@PROJECT.iam.gserviceaccount.com --role={right}{condition}",
            role.name()
        )
    };
    let from = |file: &str| format!(" --condition-from-file={file}");
    let mut lines: Vec<String> =
        roles.iter().map(|(right, file)| binding(&format!("roles/storage.{right}"), &from(file))).collect();
    if place.repository.lock.is_some() {
        if role != Role::Reader {
            lines.push(binding(&format!("projects/PROJECT/roles/{LOCKING}"), &from(&below)));
        }
        lines.push(binding(&format!("projects/PROJECT/roles/{LOOKING}"), " --condition=None"));
    }
    lines
}

/// What a bucket needs for `lock_days`, and the rights that no role of Google's has alone.
fn locking(bucket: &str) -> String {
    format!(
        "\nFor lock_days the bucket needs object retention and versions. An old bucket gets the first in Google's console alone; a new one:\n\n\
         gcloud storage buckets create gs://{bucket} --enable-per-object-retention --uniform-bucket-level-access\n\
         gcloud storage buckets update gs://{bucket} --versioning\n\n\
         gcloud iam roles create {LOCKING} --project=PROJECT --permissions=storage.objects.setRetention,storage.objects.update\n\
         gcloud iam roles create {LOOKING} --project=PROJECT --permissions=storage.buckets.get\n"
    )
}
