//! What a long-running mptm says on standard error: lines for people, for journald, or as JSON.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use nix::sys::stat::fstat;
use serde_json::json;

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; under systemd with the priorities that journald understands
    #[default]
    Text,
    /// A JSON object on each line: time, level, topic, message
    Json,
}

/// How bad it is: syslog's severities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something could not be done.
    Error = 3,
    /// Something will not work as it stands.
    Warning = 4,
    /// Something unusual was dealt with.
    Notice = 5,
    /// Something was done.
    Info = 6,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Warning => AnsiColor::Yellow.on_default().bold(),
            Self::Error | Self::Notice | Self::Info => Style::new(),
        }
    }
}

/// Where lines go.
pub struct Log {
    format: Format,
    journald: bool,
    /// What is wrong, and has been said.
    said: BTreeSet<String>,
}

impl Log {
    /// To standard error.
    pub fn new(format: Format) -> Self {
        Self { format, journald: is_journald(), said: BTreeSet::new() }
    }

    /// Says something; `topic` is one word on what it is about, and the message of an error begins with `error`. Nobody may be there to read: that is no reason to end.
    pub fn say(&self, level: Level, topic: &str, message: &str) {
        let text = match self.format {
            Format::Json => json_line(level, topic, message),
            Format::Text if self.journald => journald_lines(level, topic, message),
            Format::Text => people_lines(level, topic, message),
        };
        let _ = anstream::stderr().lock().write_all(text.as_bytes());
    }

    /// Says what is wrong now: each once, until it has been right in between.
    pub fn complain(&mut self, complaints: Vec<(Level, &'static str, String)>) {
        for (level, topic, message) in &complaints {
            if !self.said.contains(message) {
                self.say(*level, topic, message);
            }
        }
        self.said = complaints.into_iter().map(|(_, _, message)| message).collect();
    }
}

/// `warning: machine: ...`; what is no trouble needs no level, and an error begins with its own.
fn people_lines(level: Level, topic: &str, message: &str) -> String {
    let (style, message) = (level.style(), message.trim_end());
    match level {
        Level::Error => format!("{message}\n"),
        Level::Warning => format!("{style}warning{style:#}: {topic}: {message}\n"),
        Level::Notice | Level::Info => format!("{topic}: {message}\n"),
    }
}

/// The same without colours, each line with its priority: sd-daemon(3).
fn journald_lines(level: Level, topic: &str, message: &str) -> String {
    let lines = plain(&people_lines(level, topic, message));
    lines.lines().map(|line| format!("<{}>{line}\n", level as u8)).collect()
}

fn json_line(level: Level, topic: &str, message: &str) -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = (time.as_secs_f64() * 1000.0).round() / 1000.0;
    let message = plain(message);
    let line = json!({"time": time, "level": level.name(), "topic": topic, "message": message.trim_end()});
    format!("{line}\n")
}

fn plain(message: &str) -> String {
    anstream::adapter::strip_str(message).to_string()
}

/// Whether standard error leads to journald: JOURNAL_STREAM has its device and inode (systemd.exec(5)).
fn is_journald() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(own) = fstat(io::stderr().as_fd()) else { return false };
    stream == format!("{}:{}", own.st_dev, own.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journald_has_a_priority_on_each_line() {
        let text = journald_lines(Level::Error, "file", "\u{1b}[31merror\u{1b}[0m: no\n --> a.toml:1:1\n");
        assert_eq!(text, "<3>error: no\n<3> --> a.toml:1:1\n");
        assert_eq!(journald_lines(Level::Info, "file", "+ tunnel t"), "<6>file: + tunnel t\n");
    }

    #[test]
    fn json_is_one_line() {
        let text = json_line(Level::Notice, "drift", "two\nlines");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert_eq!((&value["level"], &value["topic"]), (&json!("notice"), &json!("drift")));
        assert_eq!(value["message"], "two\nlines");
        assert!(value["time"].as_f64().unwrap() > 1.7e9);
    }

    #[test]
    fn people_read_what_is_no_trouble_without_a_level() {
        assert_eq!(people_lines(Level::Info, "file", "+ tunnel t"), "file: + tunnel t\n");
        let text = people_lines(Level::Warning, "machine", "w is down\n");
        assert_eq!(plain(&text), "warning: machine: w is down\n");
    }
}
