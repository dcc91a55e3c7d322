//! One manual page, as roff for man(1).
//!
//! # Source
//! man-pages(7) for the order of sections; groff_man(7).

use clap::{Arg, Command};
use roff::{Inline, Roff, bold, italic, roman};

use crate::exit::Exit;

/// One page.
pub struct Page {
    name: String,
    section: &'static str,
    about: String,
    command: Option<Command>,
    exits: Vec<(u8, &'static str)>,
    exit_note: &'static str,
    description: Vec<Part>,
    sections: Vec<Section>,
    see_also: &'static str,
}

/// A section beyond those that are made from the parser; its heading is in capitals.
struct Section {
    heading: &'static str,
    parts: Vec<Part>,
}

/// A piece of a section.
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A word, and what it means.
    Item(String, String),
    /// Lines that are shown as they are.
    Example(&'static str),
}

impl Part {
    /// A paragraph.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A word, and what it means.
    pub fn item(word: &str, meaning: &str) -> Self {
        Self::Item(word.to_owned(), meaning.to_owned())
    }
}

impl Page {
    /// The page of a program.
    pub fn of_program(command: Command, exits: &[impl Exit], see_also: &'static str) -> Self {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let about = command.get_about().map(ToString::to_string);
        Self {
            name: command.get_name().to_owned(),
            section: "8",
            about: about.unwrap_or_default(),
            command: Some(command),
            exits: exits.iter().map(|exit| exit.row()).collect(),
            exit_note: "",
            description: Vec::new(),
            sections: Vec::new(),
            see_also,
        }
    }

    /// The page of a file's format.
    pub fn of_file(name: &str, about: &str, see_also: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            section: "5",
            about: about.to_owned(),
            command: None,
            exits: Vec::new(),
            exit_note: "",
            description: Vec::new(),
            sections: Vec::new(),
            see_also,
        }
    }

    /// The same page with paragraphs that say what it is about.
    #[must_use]
    pub fn describing(mut self, paragraphs: &[&str]) -> Self {
        self.description
            .extend(paragraphs.iter().map(|text| Part::text(text)));
        self
    }

    /// The same page with a section more, after those it has.
    #[must_use]
    pub fn with(mut self, heading: &'static str, parts: impl IntoIterator<Item = Part>) -> Self {
        let parts = parts.into_iter().collect();
        self.sections.push(Section { heading, parts });
        self
    }

    /// The same page with a sentence after the exit codes.
    #[must_use]
    pub const fn with_exit_note(mut self, note: &'static str) -> Self {
        self.exit_note = note;
        self
    }

    /// The name of the page's file.
    pub fn file(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    /// The page in roff.
    pub fn render(&self) -> String {
        let mut roff = Roff::new();
        let version = concat!("simfs ", env!("CARGO_PKG_VERSION"));
        let title = self.name.to_uppercase();
        roff.control("TH", [title.as_str(), self.section, "", version, "simfs"]);
        heading(&mut roff, "NAME");
        let about = self.about.trim_end_matches('.');
        roff.text([roman(format!("{} - {about}", self.name))]);
        if let Some(command) = &self.command {
            synopsis(&mut roff, &self.name, command);
        }
        heading(&mut roff, "DESCRIPTION");
        self.description
            .iter()
            .for_each(|part| add(&mut roff, part));
        if let Some(command) = &self.command {
            program(&mut roff, &self.name, command);
        }
        for section in &self.sections {
            heading(&mut roff, section.heading);
            section.parts.iter().for_each(|part| add(&mut roff, part));
        }
        if !self.exits.is_empty() {
            heading(&mut roff, "EXIT STATUS");
            for (code, meaning) in &self.exits {
                item(&mut roff, [bold(code.to_string())], meaning);
            }
            if !self.exit_note.is_empty() {
                add(&mut roff, &Part::text(self.exit_note));
            }
        }
        if self.command.is_some() {
            heading(&mut roff, "ENVIRONMENT");
            let meaning = "Everything lies below this directory, as with --prefix.";
            item(&mut roff, [bold(crate::paths::PREFIX_VARIABLE)], meaning);
        }
        heading(&mut roff, "SEE ALSO");
        roff.text([roman(self.see_also)]);
        roff.render()
    }
}

/// How the program is called.
fn synopsis(roff: &mut Roff, name: &str, command: &Command) {
    heading(roff, "SYNOPSIS");
    if !command.has_subcommands() {
        return usage(roff, name, command);
    }
    let words = [
        roman(" ["),
        italic("OPTIONS"),
        roman("] "),
        italic("COMMAND"),
        roman(" ..."),
    ];
    synopsis_line(roff, name, words);
}

/// Options, and commands with theirs.
fn program(roff: &mut Roff, name: &str, command: &Command) {
    heading(roff, "OPTIONS");
    visible(command).for_each(|argument| option(roff, argument));
    if !command.has_subcommands() {
        return;
    }
    heading(roff, "COMMANDS");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let full = format!("{name} {}", sub.get_name());
        roff.control("SS", [full.as_str()]);
        usage(roff, &full, sub);
        paragraph(roff);
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        roff.text([roman(sentence(&about))]);
        for alias in sub.get_visible_aliases() {
            roff.text([roman(format!("Also called {alias}."))]);
        }
        let own = visible(sub).filter(|argument| {
            // Options that stand before the command were explained there.
            !argument.is_global_set() && !matches!(argument.get_id().as_str(), "help" | "version")
        });
        own.for_each(|argument| option(roff, argument));
    }
}

/// The arguments that a page shows.
fn visible(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
}

/// How a command is called: required words, then the others in brackets.
fn usage(roff: &mut Roff, name: &str, command: &Command) {
    let mut words: Vec<Inline> = Vec::new();
    let options = visible(command)
        .filter(|argument| !argument.is_positional())
        .filter(|argument| !argument.is_global_set());
    for argument in options {
        let id = argument.get_id().as_str();
        if matches!(id, "help" | "version") {
            continue;
        }
        let is_required = argument.is_required_set();
        words.push(roman(if is_required { " " } else { " [" }));
        words.push(bold(flag(argument)));
        words.extend(
            value(argument)
                .into_iter()
                .flat_map(|value| [roman(" "), italic(value)]),
        );
        words.push(roman(if is_required { "" } else { "]" }));
    }
    for argument in visible(command).filter(|argument| argument.is_positional()) {
        let word = value(argument).unwrap_or_default();
        let is_required = argument.is_required_set();
        let before = match (argument.is_last_set(), is_required) {
            (true, _) => " [-- ",
            (false, true) => " ",
            (false, false) => " [",
        };
        words.push(roman(before));
        words.push(italic(word));
        if is_many(argument) {
            words.push(roman("..."));
        }
        words.push(roman(if is_required { "" } else { "]" }));
    }
    synopsis_line(roff, name, words);
}

fn synopsis_line(roff: &mut Roff, name: &str, words: impl IntoIterator<Item = Inline>) {
    paragraph(roff);
    let mut line = vec![bold(name)];
    line.extend(words);
    roff.text(line);
}

fn is_many(argument: &Arg) -> bool {
    argument
        .get_num_args()
        .is_some_and(|range| range.max_values() > 1)
}

/// The shortest spelling of an option.
fn flag(argument: &Arg) -> String {
    match (argument.get_long(), argument.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => String::new(),
    }
}

/// The name of an argument's value, if it has one.
fn value(argument: &Arg) -> Option<String> {
    let takes = argument.is_positional() || argument.get_action().takes_values();
    let names = argument.get_value_names()?;
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    takes.then(|| names.join(" "))
}

/// One option or word of a command line.
fn option(roff: &mut Roff, argument: &Arg) {
    let mut line = Vec::new();
    if let Some(short) = argument.get_short() {
        line.push(bold(format!("-{short}")));
    }
    if let Some(long) = argument.get_long() {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.push(bold(format!("--{long}")));
    }
    if let Some(value) = value(argument) {
        if !line.is_empty() {
            line.push(roman(" "));
        }
        line.push(italic(value));
    }
    let mut help = sentence(
        &argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && argument.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => format!("{} ({help})", value.get_name()),
            None => value.get_name().to_owned(),
        })
        .collect();
    if !values.is_empty() {
        help += &format!(" One of: {}.", values.join(", "));
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        help += &format!(" Default: {}.", defaults.join(" "));
    }
    item(roff, line, &help);
}

fn heading(roff: &mut Roff, text: &str) {
    roff.control("SH", [text]);
}

fn paragraph(roff: &mut Roff) {
    roff.control("PP", []);
}

fn item(roff: &mut Roff, line: impl Into<Vec<Inline>>, meaning: &str) {
    roff.control("TP", []);
    roff.text(line);
    roff.text([roman(sentence(meaning))]);
}

fn add(roff: &mut Roff, part: &Part) {
    match part {
        Part::Text(text) => {
            paragraph(roff);
            roff.text([roman(text.as_str())]);
        }
        Part::Item(word, meaning) => item(roff, [bold(word.as_str())], meaning),
        Part::Example(lines) => {
            paragraph(roff);
            roff.control("nf", []);
            roff.control("RS", ["4"]);
            for line in lines.lines() {
                roff.text([roman(line)]);
            }
            roff.control("RE", []);
            roff.control("fi", []);
        }
    }
}

/// A capital and a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let Some(first) = letters.next() else {
        return String::new();
    };
    let mut line: String = first.to_uppercase().collect();
    line.push_str(letters.as_str());
    if !line.ends_with(['.', ')']) {
        line.push('.');
    }
    line
}
