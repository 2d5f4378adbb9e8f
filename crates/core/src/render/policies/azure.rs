//! Rights in containers of Azure: roles with conditions, a lifecycle, immutability, and the commands that set them.
//!
//! Not run against the real service: the texts are compared with what its documents say, and with nothing else.

use super::{File, KEPT_DAYS, NOT_RUN, Place, Role, file};
use serde_json::{Value, json};

const BLOBS: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";

/// The files for a container.
pub(super) fn files(container: &str, places: &[Place<'_>]) -> Vec<File> {
    let mut files = vec![file(format!("az-{container}-lifecycle.json"), &lifecycle(places))];
    for place in places {
        for role in Role::ALL {
            files.push(file(role_file(place, role), &definition(place, role)));
            let condition = condition(place, role);
            if !condition.is_empty() {
                files.push(File { name: condition_file(place, role), text: format!("{condition}\n") });
            }
        }
    }
    files.push(File { name: format!("az-{container}-README.txt"), text: readme(container, places) });
    files
}

fn role_file(place: &Place<'_>, role: Role) -> String {
    format!("az-{}-{}-{}.json", place.bucket, place.repository.name, role.name())
}

fn condition_file(place: &Place<'_>, role: Role) -> String {
    format!("az-{}-{}-{}-condition.txt", place.bucket, place.repository.name, role.name())
}

/// `add/action` makes blobs that are not there, and replaces none; `write` would do both. The last one sets policies of blobs; one that
/// is locked it can only extend.
fn rights(place: &Place<'_>, role: Role) -> &'static [&'static str] {
    match (role, place.repository.lock) {
        (Role::Writer | Role::Pruner, None) => &["read", "add/action", "delete"],
        (Role::Writer | Role::Pruner, Some(_)) => {
            &["read", "add/action", "delete", "immutableStorage/runAsSuperUser/action"]
        }
        (Role::Reader, _) => &["read"],
    }
}

fn definition(place: &Place<'_>, role: Role) -> Value {
    let actions: Vec<String> = rights(place, role).iter().map(|right| format!("{BLOBS}/{right}")).collect();
    json!({
        "Name": format!("retoma-{}-{}", place.repository.name, role.name()), "IsCustom": true,
        "Description": format!("The {} of the repository {}", role.name(), place.repository.name),
        "Actions": actions_of_container(place), "NotActions": [], "DataActions": actions, "NotDataActions": [],
        "AssignableScopes": ["/subscriptions/SUBSCRIPTION/resourceGroups/GROUP"],
    })
}

/// To ask whether the container has version-level immutability.
fn actions_of_container(place: &Place<'_>) -> Value {
    match place.repository.lock {
        Some(_) => json!(["Microsoft.Storage/storageAccounts/blobServices/containers/read"]),
        None => json!([]),
    }
}

/// What bounds the rights to the prefix, and a writer's deletes to `locks/`. Empty where nothing does. The names of container
/// and prefix hold nothing that would end the text in it.
fn condition(place: &Place<'_>, role: Role) -> String {
    let prefix = &place.prefix;
    let action = |right: &str| format!("ActionMatches{{'{BLOBS}/{right}'}}");
    let path = |below: &str| format!("@Resource[{BLOBS}:path] StringStartsWith '{below}'");
    let mut parts = Vec::new();
    if !prefix.is_empty() {
        let others = rights(place, role).iter().filter(|right| **right != "read");
        let others: Vec<String> = others.map(|right| format!(" AND !({})", action(right))).collect();
        let others = others.concat();
        let read = action("read");
        parts.push(format!(
            "((!({read} AND NOT SubOperationMatches{{'Blob.List'}}){others}) OR ({}))",
            path(prefix)
        ));
        parts.push(format!(
            "((!({read} AND SubOperationMatches{{'Blob.List'}})) OR (@Request[{BLOBS}:prefix] StringStartsWith '{prefix}'))"
        ));
    }
    if role == Role::Writer {
        parts.push(format!("((!({})) OR ({}))", action("delete"), path(&format!("{prefix}locks/"))));
    }
    parts.join(" AND ")
}

/// Versions that are no longer the current ones go after a while; what is immutable stays in any case.
fn lifecycle(places: &[Place<'_>]) -> Value {
    let rule = |place: &Place<'_>| {
        let days = place.repository.lock.map_or(KEPT_DAYS, |lock| lock.days);
        json!({
            "enabled": true, "name": format!("retoma-{}", place.repository.name), "type": "Lifecycle",
            "definition": {
                "actions": { "version": { "delete": { "daysAfterCreationGreaterThan": days } } },
                "filters": { "blobTypes": ["blockBlob"], "prefixMatch": [format!("{}/{}", place.bucket, place.prefix)] },
            },
        })
    };
    json!({ "rules": places.iter().map(rule).collect::<Vec<_>>() })
}

fn readme(container: &str, places: &[Place<'_>]) -> String {
    let mut text = format!(
        "{NOT_RUN}\n\n\
         Rights in the container {container} for writer, reader and pruner of each repository. Put your own in for SUBSCRIPTION, GROUP,\n\
         ACCOUNT and the identities' ids, in the files too, and run these commands in this folder as somebody who owns the account.\n"
    );
    let scope = format!(
        "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Storage/storageAccounts/ACCOUNT/blobServices/default/\
         containers/{container}"
    );
    for place in places {
        for role in Role::ALL {
            text.push('\n');
            text.push_str(&assignment(place, role, &scope));
        }
    }
    let sets = if places.iter().any(|place| place.repository.lock.is_some()) { "i" } else { "" };
    let more = format!(
        "\nA writer may add blobs, read and list them below its prefix, and delete below locks/; it can replace nothing. A pruner may also\n\
         delete below its prefix. A shared access signature knows no prefixes; for a container of one repository alone (writer, reader,\n\
         pruner; a writer's locks then stay behind and go stale after 30 minutes):\n\n\
         az storage container generate-sas --account-name ACCOUNT --name {container} --permissions rcl{sets} --https-only --expiry DATE\n\
         az storage container generate-sas --account-name ACCOUNT --name {container} --permissions rl --https-only --expiry DATE\n\
         az storage container generate-sas --account-name ACCOUNT --name {container} --permissions rcdl{sets} --https-only --expiry DATE\n\n\
         What nobody can delete for a while: set lock_days in the manifest. The container needs version-level immutability for that, and \
         the\n\
         account versions: a delete then leaves the version, and locks go away as ever. A new container, or one that is there:\n\n\
         az storage account blob-service-properties update --account-name ACCOUNT --resource-group GROUP --enable-versioning true\n\
         az storage container-rm create --storage-account ACCOUNT --resource-group GROUP --name {container} --enable-vlw\n\
         az storage container-rm migrate-vlw --storage-account ACCOUNT --resource-group GROUP --name {container}\n\n\
         A policy of the whole container is none for Retoma: it is not renewed, so that what a kept snapshot needs and what is older can\n\
         be deleted. A policy in the mode `unlocked` (lock_mode governance) can be taken away by writer and pruner.\n\n\
         What frees old versions again. An account has one such policy, and this replaces it:\n\n\
         az storage account management-policy create --account-name ACCOUNT --resource-group GROUP \
         --policy @az-{container}-lifecycle.json\n"
    );
    text + &more
}

fn assignment(place: &Place<'_>, role: Role, scope: &str) -> String {
    let name = format!("retoma-{}-{}", place.repository.name, role.name());
    let condition = if condition(place, role).is_empty() {
        String::new()
    } else {
        format!(" --condition \"$(cat {})\" --condition-version 2.0", condition_file(place, role))
    };
    format!(
        "az role definition create --role-definition @{}\n\
         az role assignment create --assignee ID-OF-{} --role {name} --scope {scope}{condition}\n",
        role_file(place, role),
        name.to_uppercase()
    )
}
