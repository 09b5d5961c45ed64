//! Tables as Markdown, so that what a bench prints can be pasted into BENCHMARKS.md.

/// Rows below a heading; the first column is text, the others are numbers.
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.heading.len(), "a cell for each column: {cells:?}");
        self.rows.push(cells);
    }

    /// Prints it, with columns as wide as they must be.
    pub fn print(&self) {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.heading]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(3)
        };
        let line = |row: &[String]| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = width(column);
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        };
        line(&self.heading);
        let rules = (0..self.heading.len()).map(|column| {
            let dashes = "-".repeat(width(column) - 1);
            if column == 0 { format!("{dashes}-") } else { format!("{dashes}:") }
        });
        println!("| {} |", rules.collect::<Vec<_>>().join(" | "));
        self.rows.iter().for_each(|row| line(row));
        println!();
    }
}
