//! The README as sections, code blocks, tables and code spans.

use std::path::Path;

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The heading it is under.
    pub section: String,
    pub language: String,
    pub text: String,
}

pub struct Page {
    text: String,
    pub blocks: Vec<Block>,
}

impl Page {
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let text = std::fs::read_to_string(path).expect("a README");
        let mut blocks: Vec<Block> = Vec::new();
        let (mut section, mut inside) = (String::new(), false);
        for line in text.lines() {
            match (inside, line.strip_prefix("```"), line.strip_prefix("## ")) {
                (false, Some(language), _) => {
                    let (section, language) = (section.clone(), language.to_owned());
                    blocks.push(Block { section, language, text: String::new() });
                    inside = true;
                }
                (true, Some(_), _) => inside = false,
                (true, None, _) => {
                    let block = blocks.last_mut().expect("it has begun");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (false, None, Some(heading)) => section = heading.to_owned(),
                (false, None, None) => {}
            }
        }
        assert!(!inside, "a block has no end");
        Self { text, blocks }
    }

    /// Words of code, in spans and blocks, that begin with one of these.
    pub fn words_that_begin_with(&self, beginnings: &[&str]) -> Vec<&str> {
        let ends = |c: char| c.is_whitespace() || "`'\"()[]|,;=".contains(c);
        let words = self.text.split(ends).map(|word| word.trim_end_matches(['.', ':', '*']));
        let wanted = |word: &&str| {
            let begins =
                |beginning: &&str| word.len() > beginning.len() && word.starts_with(*beginning);
            beginnings.iter().any(begins) && !word.starts_with("---")
        };
        words.filter(wanted).collect()
    }

    /// What follows `pushline` where it is a command.
    pub fn subcommands(&self) -> Vec<String> {
        let followers = self.text.split("pushline ").skip(1);
        let words = followers.filter_map(|rest| rest.split([' ', '`', '\n']).next());
        let known = ["bench", "config", "doctor", "pub", "serve", "sub", "token", "tune"];
        let mut found: Vec<String> =
            words.filter(|word| known.contains(word)).map(str::to_owned).collect();
        found.sort();
        found.dedup();
        assert!(found.len() >= 4, "{found:?}");
        found
    }

    /// The numbers in the last cell of the row that begins like this.
    pub fn last_numbers(&self, begins: &str) -> Vec<f64> {
        let row = self.text.lines().find(|line| line.starts_with(begins));
        let row = row.unwrap_or_else(|| panic!("no row begins with {begins}"));
        let last = row.trim_end_matches([' ', '|']).rsplit('|').next().expect("a cell");
        last.split(';').map(|number| number.trim().parse().expect("a number")).collect()
    }

    /// The rows of the first table in a section, by cells, without its head.
    pub fn table(&self, section: &str) -> Vec<Vec<String>> {
        let begins = format!("\n## {section}\n");
        let (_, rest) = self.text.split_once(&begins).expect("the section is there");
        let rest = rest.split("\n## ").next().unwrap_or(rest);
        let rows = rest.lines().skip_while(|line| !line.starts_with('|'));
        let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
        rows.map(|row| {
            let cells = row.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim_matches([' ', '|']).to_owned()).collect()
        })
        .collect()
    }
}

/// What is between backticks.
pub fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
