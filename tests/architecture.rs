//! The architecture's rules that a compiler does not hold: which layer knows which, where `unsafe`
//! is allowed and that it says why, and that files stay readable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the crate, and the others it may name, all of which come before it here.
const LAYERS: [(&str, &[&str]); 19] = [
    ("bits", &[]),
    ("bucket", &[]),
    ("host", &[]),
    ("limits", &[]),
    ("proto", &[]),
    ("ring", &["bits"]),
    ("web", &[]),
    ("log", &["bits", "bucket", "proto"]),
    ("reason", &["proto", "log"]),
    ("metrics", &["reason"]),
    ("auth", &["proto"]),
    ("mesh", &["limits", "log"]),
    ("journal", &["limits", "log", "metrics"]),
    ("cluster", &["log", "mesh", "metrics", "proto"]),
    ("config", &["auth", "journal", "limits", "log", "proto"]),
    (
        "worker",
        &[
            "auth", "bits", "bucket", "config", "limits", "log", "mesh", "metrics", "proto",
            "reason", "ring", "web",
        ],
    ),
    ("tools", &["cluster", "config", "host", "limits", "proto", "ring"]),
    (
        "server",
        &[
            "auth", "cluster", "config", "host", "journal", "limits", "log", "mesh", "metrics",
            "proto", "reason", "ring", "tools", "web", "worker",
        ],
    ),
    ("cli", &["auth", "config", "host", "journal", "log", "proto", "ring", "server", "tools"]),
];

/// Above this many lines a file should be split; above [`FILE_LINES_LIMIT`] the test fails.
const FILE_LINES_GOAL: usize = 500;
const FILE_LINES_LIMIT: usize = 600;

/// A type with more methods than this is several, and each of them could touch what the others have.
const METHODS_LIMIT: usize = 125;

#[test]
fn layers_know_only_those_below_them() {
    let mut wrong = Vec::new();
    for file in sources() {
        let layer = layer_of(&file.path);
        if matches!(&*layer, "lib" | "main") {
            continue;
        }
        let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            panic!("{}: say in LAYERS what this module may name", file.path.display());
        };
        for named in modules_named(&file.without_tests()) {
            if named == layer || below.contains(&named.as_str()) {
                continue;
            }
            wrong.push(format!("{} names {named}", file.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_two_layers_need_each_other() {
    for (at, (name, below)) in LAYERS.iter().enumerate() {
        for named in *below {
            let comes_before = LAYERS[..at].iter().any(|(other, _)| other == named);
            assert!(comes_before, "{name} names {named}, which does not come before it");
        }
    }
}

/// An entry that no code needs would hide that two modules have come apart.
#[test]
fn every_entry_of_the_layers_is_needed() {
    let mut named = BTreeMap::<String, Vec<String>>::new();
    for file in sources() {
        let by_file = modules_named(&file.without_tests());
        named.entry(layer_of(&file.path)).or_default().extend(by_file);
    }
    let needs =
        |name, other: &str| named.get(name).is_some_and(|by| by.iter().any(|of| of == other));
    let unneeded: Vec<_> = LAYERS
        .iter()
        .flat_map(|(name, below)| below.iter().map(move |other| (*name, *other)))
        .filter(|(name, other)| !needs(*name, other))
        .collect();
    assert!(unneeded.is_empty(), "nothing needs these any more: {unneeded:?}");
}

/// A part of a worker, and what it must not name: the other two parts, the files that know all
/// three, and the driver, if it is not the one that talks to it.
const PARTS_OF_A_WORKER: [(&str, &[&str]); 3] = [
    ("net", &["session", "hub", "turn", "link", "effect"]),
    ("session", &["net", "hub", "turn", "link"]),
    ("hub", &["net", "session", "turn", "link", "effect", "ring"]),
];

#[test]
fn sockets_sessions_and_subscribers_do_not_know_each_other() {
    let mut seen = 0;
    for file in sources() {
        for (part, forbidden) in PARTS_OF_A_WORKER {
            if !file.path.starts_with(Path::new("src/worker").join(part)) {
                continue;
            }
            seen += 1;
            let code = file.without_tests();
            for name in forbidden {
                for path in ["super::", "worker::", "crate::"].map(|from| format!("{from}{name}::"))
                {
                    assert!(!code.contains(&path), "{} names {path}", file.path.display());
                }
            }
        }
    }
    assert!(seen > PARTS_OF_A_WORKER.len(), "the parts have moved: this test looks at nothing");
}

/// What a session knows of the driver is the token that identifies its connection.
#[test]
fn sessions_know_only_tokens_of_the_driver() {
    let mut seen = 0;
    for file in sources().iter().filter(|file| file.path.starts_with("src/worker/session")) {
        let code = file.without_tests().replace("crate::ring::Token", "");
        seen += usize::from(code.len() < file.without_tests().len());
        assert!(!modules_named(&code).contains(&"ring".to_owned()), "{}", file.path.display());
    }
    assert!(seen > 5, "the sessions have moved: this test looks at nothing");
}

/// What a session wants changed it returns. Were it handed something that it can change, a session
/// would act in the middle of its own decision.
#[test]
fn a_session_only_asks_about_its_surroundings() {
    let text = read("src/worker/session/world.rs");
    let (_, world) = text.split_once("pub trait World {").expect("what a session may ask");
    let (world, _) = world.split_once("\n}").expect("its end");
    assert!(world.contains("&self"), "this test looks at nothing");
    assert!(!world.contains("&mut self"), "a session changes what is around it: {world}");
    assert!(text.contains("world: &'a dyn World"), "a session may change what is around it");
}

/// What is done with a session is in functions beside it, which are handed a `Cx`.
#[test]
fn a_sessions_state_does_not_know_what_is_done_with_it() {
    let mut seen = 0;
    for file in sources().iter().filter(|file| file.path.starts_with("src/worker/session/state")) {
        seen += 1;
        assert!(!has_word(&file.without_tests(), "Cx"), "{} acts", file.path.display());
    }
    assert!(seen > 5, "the state has moved: this test looks at nothing");
}

/// With a second place that sends, a stream could be torn.
#[test]
fn one_file_of_the_worker_sends() {
    let senders: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| file.path.starts_with("src/worker") && file.text.contains("Op::Send {"))
        .map(|file| file.path)
        .collect();
    assert_eq!(senders, [Path::new("src/worker/net/output.rs")]);
}

/// What of HTTP/2's streams needs sockets and output is beside their books, in `net/carrying.rs`.
#[test]
fn the_books_of_h2_streams_know_no_sockets() {
    let mut seen = 0;
    for file in sources().iter().filter(|file| file.path.starts_with("src/worker/net/h2_streams")) {
        let code = file.without_tests();
        seen += 1;
        for name in ["Net", "Socket", "Output", "Own", "ring"] {
            assert!(!has_word(&code, name), "{} names {name}", file.path.display());
        }
    }
    assert!(seen > 2, "the books have moved: this test looks at nothing");
}

/// With a second way out, a connection could leave without its log line, its count or its place
/// on a channel being dealt with.
#[test]
fn one_file_of_the_worker_closes_connections() {
    let doors: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| file.path.starts_with("src/worker"))
        .filter(|file| file.without_tests().contains("net.close("))
        .map(|file| file.path)
        .collect();
    assert_eq!(doors, [Path::new("src/worker/ending.rs")]);
}

/// What else is particular to a driver (whether it can run here, how its workers are rung) comes from
/// `ring` itself.
#[test]
fn one_file_outside_of_ring_names_its_drivers() {
    let files: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| !file.path.starts_with("src/ring"))
        .filter(|file| {
            let code = file.without_tests();
            ["ring::uring::", "ring::epoll::"].iter().any(|driver| code.contains(driver))
        })
        .map(|file| file.path)
        .collect();
    assert_eq!(files, [Path::new("src/server/threads.rs")]);
}

#[test]
fn unsafe_stands_in_the_uring_driver_alone_and_says_why() {
    let mut blocks = 0;
    for file in sources() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !has_word(code, "unsafe") {
                continue;
            }
            let place = format!("{}:{}", file.path.display(), at + 1);
            assert!(file.path.starts_with("src/ring/uring"), "{place}: unsafe outside the driver");
            blocks += 1;
            assert!(is_explained(&lines, at), "{place}: unsafe without a // SAFETY: comment");
        }
    }
    assert!(blocks > 0, "the driver has none? then this test looks in the wrong place");
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"deny\""));
    let allows: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| file.code_lines().any(|line| line.contains("allow(unsafe_code")))
        .map(|file| file.path)
        .collect();
    assert_eq!(allows, [Path::new("src/ring/uring/mod.rs")], "the one place that lets it in");
}

/// Tests switch it on by a dev-dependency of the crate on itself; nothing else may.
#[test]
fn the_simulated_kernel_is_no_part_of_the_product() {
    assert!(read("src/ring/mod.rs").contains("#[cfg(feature = \"sim\")]\npub mod sim;"));
    let manifest = read("Cargo.toml");
    let product = manifest.split("[dev-dependencies]").next().expect("the part for users");
    assert!(product.contains("\nsim = []") && !product.contains("default = ["), "{product}");
}

/// `cargo bench` builds the program too, with unwinding: in target/release it would be mistaken for
/// the release build.
#[test]
fn benches_are_built_into_a_folder_of_their_own() {
    let scripts = fs::read_dir("scripts").expect("scripts").map(|entry| entry.expect("one").path());
    let others = ["README.md", "tuning/benchmarks.md", "scripts/lib/bench.sh", ".ci/run"];
    let places = others.map(PathBuf::from).into_iter().chain(scripts);
    let mut seen = 0;
    for path in places.filter(|path| path.is_file()) {
        let text = fs::read_to_string(&path).expect("text");
        for command in text.split("cargo bench").skip(1) {
            assert!(command.starts_with(" --target-dir target/benches"), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "no script builds benches any more: take this test away");
}

#[test]
fn files_stay_readable() {
    let mut too_long = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_LIMIT {
            too_long.push(format!("{}: {lines} lines", file.path.display()));
        } else if lines > FILE_LINES_GOAL {
            eprintln!("warning: {}: {lines} lines, split it", file.path.display());
        }
    }
    assert!(too_long.is_empty(), "{too_long:#?}");
}

#[test]
fn no_type_is_several() {
    let mut methods = BTreeMap::<_, usize>::new();
    for file in sources() {
        let folder: PathBuf = file.path.parent().expect("a folder").iter().take(3).collect();
        let mut of = None;
        for line in file.without_tests().lines() {
            match line.strip_prefix("impl") {
                Some(head) => of = type_of(head).map(str::to_owned),
                None if line == "}" => of = None,
                None if is_method(line) => {
                    if let Some(of) = &of {
                        *methods.entry((folder.clone(), of.clone())).or_default() += 1;
                    }
                }
                None => {}
            }
        }
    }
    let of_core = methods.get(&(PathBuf::from("src/worker"), "Core".to_owned()));
    assert!(of_core.is_some_and(|methods| *methods > 50), "this test counts nothing");
    methods.retain(|_, methods| *methods > METHODS_LIMIT);
    assert!(methods.is_empty(), "{methods:#?}");
}

/// The type whose own methods follow.
fn type_of(head: &str) -> Option<&str> {
    let name = match head.strip_prefix('<') {
        Some(generics) => generics.split_once("> ")?.1,
        None => head.trim_start(),
    };
    let is_own = !head.contains(" for ");
    is_own.then(|| name.split(['<', ' ']).next().unwrap_or_default())
}

fn is_method(line: &str) -> bool {
    let Some(line) = line.strip_prefix("    ").filter(|line| !line.starts_with(' ')) else {
        return false;
    };
    let before = line.split_once("fn ").map(|(before, _)| before);
    before
        .is_some_and(|before| before.is_empty() || before.starts_with("pub") || before == "const ")
}

/// Words that add nothing to those of a name.
const EMPTY_WORDS: &str = "a all an and by for how in is it its of on one ones or that the this to was what which whose with";

#[test]
fn a_doc_comment_says_more_than_the_name() {
    let mut empty = Vec::new();
    for file in sources() {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate() {
            let is_doc = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("///"));
            let Some(doc) = line.strip_prefix("/// ") else { continue };
            let is_alone =
                !is_doc(at + 1) && at.checked_sub(1).is_none_or(|before| !is_doc(before));
            let item =
                lines[at..].iter().find(|line| !line.starts_with("///") && !line.starts_with('#'));
            if is_alone && item.is_some_and(|item| repeats_the_name(doc, item)) {
                empty.push(format!("{}:{}: {doc}", file.path.display(), at + 1));
            }
        }
    }
    assert!(empty.is_empty(), "say what is meant, or in which unit, or nothing: {empty:#?}");
}

/// Whether all words of a doc comment are those of the item's name, or say nothing. What is quoted, a
/// number or a sign is a fact.
fn repeats_the_name(doc: &str, item: &str) -> bool {
    if doc.contains(|c: char| c == '`' || c == '[' || c.is_ascii_digit()) {
        return false;
    }
    let words = |text: &str| -> Vec<String> {
        let parts = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|part| !part.is_empty());
        parts.map(|part| part.to_lowercase().trim_end_matches('s').to_owned()).collect()
    };
    let mut spaced = String::new();
    for c in item.split(['(', ':', '{', ',', '=']).next().unwrap_or_default().chars() {
        if c.is_ascii_uppercase() {
            spaced.push(' ');
        }
        spaced.push(c);
    }
    let (of_name, empty) = (words(&spaced), words(EMPTY_WORDS));
    words(doc).iter().all(|word| of_name.contains(word) || empty.contains(word))
}

#[test]
fn what_repeats_a_name_is_told_from_what_does_not() {
    assert!(repeats_the_name("Its name.", "pub name: Arc<ChannelName>,"));
    assert!(repeats_the_name("Which.", "stream: u32,"));
    assert!(repeats_the_name("The peer closed.", "PeerClosed,"));
    assert!(!repeats_the_name("Seconds since it was accepted.", "age_s: u32,"));
    assert!(!repeats_the_name("`Upgrade`.", "pub upgrade: Field<'a>,"));
}

#[test]
fn nothing_is_left_to_do_without_a_word_of_why() {
    for file in sources() {
        for (at, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path.display(), at + 1);
            for word in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("] {
                assert!(!line.contains(word), "{place}: {word}");
            }
        }
    }
}

/// Whether the `unsafe` in this line is explained: by a comment above it (with attributes, the rest
/// of the statement and other `unsafe` lines in between), or, for an `unsafe fn`, by a section of
/// its documentation.
fn is_explained(lines: &[&str], at: usize) -> bool {
    const LINES_BETWEEN_MAX: usize = 8;
    let from = at.saturating_sub(LINES_BETWEEN_MAX);
    lines[from..=at].iter().any(|line| line.contains("// SAFETY:") || line.contains("# Safety"))
}

// --- sources ---

struct Source {
    /// From the crate's root.
    path: PathBuf,
    text: String,
}

impl Source {
    fn code_lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(|line| line.split("//").next().unwrap_or_default())
    }

    /// Without comments and without what `#[cfg(test)]` guards at the end of the file: tests may
    /// look anywhere.
    fn without_tests(&self) -> String {
        let is_test_file = self.path.iter().any(|part| part == "tests" || part == "tests.rs");
        if is_test_file {
            return String::new();
        }
        let code: Vec<&str> = self.code_lines().collect();
        let end = code.iter().enumerate().position(|(at, line)| {
            line.trim() == "#[cfg(test)]"
                && code.get(at + 1).is_some_and(|next| next.trim_end().ends_with("mod tests {"))
        });
        code[..end.unwrap_or(code.len())].join("\n")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("a file of the crate")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the crate") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = read(&path);
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The module right below the crate that a file belongs to.
fn layer_of(path: &Path) -> String {
    let part = path.iter().nth(1).expect("below src").to_string_lossy();
    part.trim_end_matches(".rs").to_owned()
}

/// The modules named after `crate::`.
fn modules_named(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        let rest = &code[place + "crate::".len()..];
        // `use crate::{a, b::c};` names several.
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default(),
            None => rest.split([',', ';']).next().unwrap_or_default(),
        };
        for name in names.split(',') {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name: String = name.trim().chars().take_while(|&c| is_name(c)).collect();
            if !name.is_empty() && !named.contains(&name) {
                named.push(name);
            }
        }
    }
    named
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| part == word)
}

#[test]
fn this_test_reads_imports_of_every_form() {
    let code = "use crate::log::message;\nlet x = crate::proto::y(crate::ring::Z);\n\
                use crate::{limits::A, reason, };";
    assert_eq!(modules_named(code), ["log", "proto", "ring", "limits", "reason"]);
    assert!(has_word("unsafe {", "unsafe") && !has_word("unsafe_code", "unsafe"));
}
