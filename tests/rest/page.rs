//! `docs/user/rest.md`, as what it promises.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The promises of the page.
pub struct Page {
    /// Files by name, to be put where the engine is started.
    pub files: Vec<(String, String)>,
    /// The curl lines, in order.
    pub lines: Vec<Line>,
    /// Bodies that are shown and not sent.
    pub bodies: Vec<Value>,
    /// The table of bad input.
    pub rows: Vec<Row>,
}

/// A line to type.
pub struct Line {
    /// Where it is on the page.
    pub number: usize,
    pub command: String,
    /// The status code that is promised.
    pub status: u16,
    /// What is shown of the answer.
    pub answer: Option<Shown>,
}

/// What the page shows of an answer; patterns.
pub enum Shown {
    Json(Value),
    /// Lines, each somewhere after the one before.
    Text(Vec<String>),
}

/// A row of the table of bad input. The status and the code are empty where there is no answer.
#[derive(Debug)]
pub struct Row {
    pub sent: String,
    pub status: String,
    pub code: String,
    /// A pattern.
    pub message: String,
}

impl Page {
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/user/rest.md");
        Self::parse(&fs::read_to_string(path).unwrap())
    }

    fn parse(text: &str) -> Self {
        let mut page = Self { files: Vec::new(), lines: Vec::new(), bodies: Vec::new(), rows: Vec::new() };
        let mut lines = text.lines().enumerate();
        while let Some((_, line)) = lines.next() {
            if let Some(info) = line.strip_prefix("```") {
                let block: Vec<_> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
                page.block(info, &block);
            } else if line == "## Bad input" {
                page.rows = lines
                    .by_ref()
                    .take_while(|(_, line)| !line.starts_with("## "))
                    .filter_map(|(_, line)| line.strip_prefix("| "))
                    .skip(1)
                    .map(row)
                    .collect();
            }
        }
        page
    }

    fn block(&mut self, info: &str, block: &[(usize, &str)]) {
        let whole = || block.iter().map(|(_, line)| format!("{line}\n")).collect::<String>();
        match info.split_once(' ').unwrap_or((info, "")) {
            ("sh", "") => self.lines.extend(block.iter().filter_map(|(at, line)| curl(at + 1, line))),
            ("json", "") => self.show(Shown::Json(serde_json::from_str(&whole()).unwrap())),
            ("json", "body") => self.bodies.push(serde_json::from_str(&whole()).unwrap()),
            ("text", _) => self.show(Shown::Text(block.iter().map(|(_, line)| (*line).to_owned()).collect())),
            (_, "" | "envelope") => {}
            (_, file) => self.files.push((file.to_owned(), whole())),
        }
    }

    /// What is shown belongs to the line before it.
    fn show(&mut self, shown: Shown) {
        let line = self.lines.last_mut().unwrap();
        assert!(line.answer.is_none(), "two answers to line {}", line.number);
        line.answer = Some(shown);
    }
}

/// A line that asks the engine something, and ends with the status code as a comment.
fn curl(number: usize, line: &str) -> Option<Line> {
    if !line.starts_with("curl ") {
        return None;
    }
    let (command, status) =
        line.rsplit_once(" # ").unwrap_or_else(|| panic!("line {number} promises no status"));
    Some(Line {
        number,
        command: command.trim_end().to_owned(),
        status: status.parse().unwrap(),
        answer: None,
    })
}

fn row(line: &str) -> Row {
    let mut cells = line.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned());
    let mut cell = || cells.next().unwrap_or_else(|| panic!("a cell is missing: {line}"));
    let row =
        Row { sent: cell(), status: cell(), code: cell().trim_matches('`').to_owned(), message: cell() };
    assert_eq!(cells.next(), None, "{line}");
    row
}
