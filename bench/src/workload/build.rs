//! A program compiled from many small sources.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};
use crate::programs::{Program, command, run_in};

pub(super) struct Build;

/// Functions of one source.
const FUNCTIONS: u32 = 20;

impl Workload for Build {
    fn name(&self) -> String {
        "build".to_owned()
    }

    fn about(&self) -> &'static str {
        "gcc compiles and links 40 sources (8 quick)"
    }

    fn programs(&self) -> &'static [Program] {
        const { &[Program::new("gcc", "gcc")] }
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let count = place.scale.pick(8, 40);
        fs::write(place.dir.join("main.c"), main_source(count))?;
        fs::write(
            place.dir.join("all.h"),
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n",
        )?;
        for number in 0..count {
            fs::write(place.dir.join(format!("s{number}.c")), source(number))?;
        }
        let built = timed("gcc-build", 1, Unit::Runs, || {
            for number in 0..count {
                let name = format!("s{number}.c");
                run_in(place.dir, &mut command("gcc", ["-O1", "-c", &name]))?;
            }
            let line = "gcc -O1 -o program main.c s*.o && ./program";
            run_in(place.dir, &mut command("sh", ["-c", line]))
        })?;
        Ok(vec![built])
    }
}

fn source(number: u32) -> String {
    let mut text = "#include \"all.h\"\n".to_owned();
    for function in 0..FUNCTIONS {
        let _ = writeln!(
            text,
            "int f{number}_{function}(int x) {{ char b[64]; snprintf(b, sizeof b, \"%d\", x * {function}); \
             return atoi(b) + (int)strlen(b); }}"
        );
    }
    text
}

fn main_source(count: u32) -> String {
    let mut text = String::new();
    for number in 0..count {
        let _ = writeln!(text, "int f{number}_1(int);");
    }
    text.push_str("int main(void) { int s = 0;\n");
    for number in 0..count {
        let _ = writeln!(text, "s += f{number}_1(s);");
    }
    text.push_str("return s == 0; }\n");
    text
}
