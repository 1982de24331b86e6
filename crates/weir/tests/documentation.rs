//! The documentation names only what exists: files, headings, commands and their flags. And what
//! exists it names whole: settings, keys of the status, paths of the API.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weir_server::answer::{NodeStatus, Status};
use weir_server::api;

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        for target in link_targets(&text) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                _ => page.parent().expect("a page is in a directory").join(file),
            };
            if !path.exists() {
                wrong.push(format!("{}: {target}: no such file", page.display()));
            } else if !anchor.is_empty() && !anchors(&read(&path)).contains(anchor) {
                wrong.push(format!("{}: {target}: no such heading", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_and_flags_exist() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = read(&page);
        for command in commands(&text) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let named = words.iter().take_while(|word| is_name(word)).count();
            let help = help(&words[..named]);
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().expect("split yields at least one part");
                let flag = flag.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
                checked += 1;
                if !flag.is_empty() && !help.contains(flag) {
                    wrong.push(format!("{}: `weir {command}`: no {flag}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 10, "only {checked} flags were found; does this test still find any?");
}

/// The table of settings is complete and has the right defaults, variables and keys.
#[test]
fn every_setting_is_documented() {
    let page = read(&root().join("docs/configure.md"));
    let help = help(&["up"]);
    let options = help.split("Options:").nth(1).expect("weir up has options");
    let flags = options.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let mut flags: Vec<&str> =
        flags.filter_map(|flag| flag.split([' ', ',']).next()).filter(|f| *f != "help").collect();
    flags.dedup();
    let example = run(&["config", "example"]);
    let checked = run(&["config", "check", "--data-dir", "/data"]);
    for flag in &flags {
        let row = page.lines().find(|line| line.starts_with(&format!("| `--{flag}")));
        let row = row.unwrap_or_else(|| panic!("docs/configure.md has no row for --{flag}"));
        let key = flag.replace('-', "_");
        let variable = format!("WEIR_{}", key.to_uppercase());
        assert!(row.contains(&format!("`{variable}`")), "{flag}: no {variable}");
        assert!(help.contains(&variable), "{flag}: {variable} is not its variable");
        if *flag != "config" {
            assert!(row.contains(&format!("| `{key}` |")), "{flag}: no {key}");
            assert!(checked.contains(&format!("{key}: ")), "{key} is not a key");
            assert!(example.contains(&format!("{key}:")), "the example has no {key}");
        }
    }
    assert_eq!(flags.len(), checked.lines().count() + 1, "{flags:?}\n{checked}");
    for default in ["5s", "1%", "10s=1d,1m=14d,1h=400d", "netlink", "127.0.0.1:8885"] {
        assert!(help.contains(&format!("[default: {default}]")), "{default} is not a default");
        assert!(page.contains(&format!("| `{default}` |")), "{default} is not documented");
    }
}

/// Whoever reads a key in the status can look it up.
#[test]
fn every_key_of_the_status_is_documented() {
    let page = read(&root().join("docs/troubleshoot.md"));
    let status = Status { nodes: vec![NodeStatus::default()], ..Status::default() };
    let json = serde_json::to_value(&status).expect("a status is plain data");
    let keys: Vec<String> = [keys(&json), keys(&json["nodes"][0])].concat();
    assert!(keys.len() > 40, "only {keys:?}");
    let missing: Vec<_> = keys.iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/troubleshoot.md does not explain {missing:?}");
}

/// The page of the API has a section for each path, which names its parameters, and every error.
#[test]
fn every_path_of_the_api_is_documented() {
    let page = read(&root().join("docs/api.md"));
    let document = api::openapi_document();
    let paths = document["paths"].as_object().expect("a document has paths");
    let mut missing = Vec::new();
    for (path, operations) in paths {
        let name = path.rsplit('/').next().expect("a path has a last part");
        if name == "openapi.json" {
            assert!(page.contains(path.as_str()), "{path} is not mentioned");
            continue;
        }
        let Some(section) = section(&page, &format!("## {name}")) else {
            missing.push(format!("{path}: no section"));
            continue;
        };
        let parameters = operations["get"]["parameters"].as_array().expect("each has a list");
        for parameter in parameters {
            let name = parameter["name"].as_str().expect("a parameter has a name");
            if !section.contains(&format!("`{name}`")) {
                missing.push(format!("{path}: no `{name}`"));
            }
        }
    }
    assert!(paths.len() >= 8, "only {paths:?}");
    let responses = document["components"]["responses"].as_object().expect("it has answers");
    let errors = section(&page, "## Errors").expect("the page tells of errors");
    missing.extend(responses.keys().filter(|status| !errors.contains(*status)).cloned());
    assert!(missing.is_empty(), "docs/api.md: {missing:#?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages() -> Vec<PathBuf> {
    let markdown = |directory: PathBuf| {
        let entries = fs::read_dir(directory).expect("the directory is there");
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    };
    let mut pages: Vec<_> = markdown(root()).chain(markdown(root().join("docs"))).collect();
    pages.sort();
    assert!(pages.len() >= 7, "only {pages:?}");
    pages
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a page that was found can be read")
}

fn keys(object: &Value) -> Vec<String> {
    object.as_object().expect("it has keys").keys().cloned().collect()
}

/// What stands under a heading, up to the next of its kind.
fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("\n{heading}\n"))?;
    rest.split("\n## ").next()
}

/// Targets of `[text](target)` that are not on the web.
fn link_targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
}

/// Headings as anchors: lower case, spaces as hyphens, punctuation gone.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// What follows `weir` in code spans and code blocks, up to the end of the command.
fn commands(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            commands.extend(line.split("weir ").nth(1).filter(|_| line.contains("weir ")));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            commands.extend(spans.filter_map(|span| span.strip_prefix("weir ")));
        }
    }
    commands
        .into_iter()
        .map(|command| command.split(['#', '|', ';']).next().unwrap_or(command).trim())
        // Prose and configuration mention weir, too; commands begin with a subcommand.
        .filter(|command| {
            let names = ["up", "top", "server", "query", "ranges", "config", "completions", "man"];
            names.iter().any(|name| command.split(' ').next() == Some(*name))
        })
        .collect()
}

fn is_name(word: &str) -> bool {
    const NAMES: [&str; 22] = [
        "up",
        "top",
        "query",
        "flows",
        "series",
        "values",
        "status",
        "config",
        "check",
        "check-server",
        "example",
        "example-server",
        "server",
        "migrate",
        "rebuild",
        "grants",
        "ranges",
        "list",
        "lookup",
        "build",
        "completions",
        "man",
    ];
    NAMES.contains(&word)
}

fn help(words: &[&str]) -> String {
    run(&[words, &["--help"]].concat())
}

fn run(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(words)
        .env_clear()
        .output()
        .expect("weir was built with this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "weir {}: {said}", words.join(" "));
    String::from_utf8(output.stdout).expect("weir prints UTF-8")
}
