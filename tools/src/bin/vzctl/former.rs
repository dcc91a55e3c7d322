//! What was kept of a VE before a command: its configuration file and its names.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::ve_config::{Changes, VeConfig};
use simfs_tools::ve_state::named;

use crate::{Context, Fallible, config_failure, system};

/// Put back when it is dropped, unless [`Former::replace`] was called: a command that fails keeps nothing.
pub(crate) struct Former<'a> {
    context: &'a Context,
    text: Option<String>,
    names: Vec<String>,
    is_replaced: bool,
}

impl<'a> Former<'a> {
    /// As it is now.
    ///
    /// # Errors
    /// A configuration file that cannot be read.
    pub(crate) fn of(context: &'a Context) -> Fallible<Self> {
        let text = match fs::read_to_string(context.paths.ve_config_file(context.ve)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.map_err(system)?),
        };
        Ok(Self {
            context,
            text,
            names: names(context),
            is_replaced: false,
        })
    }

    /// Leaves what the command has made of it.
    pub(crate) fn replace(mut self) {
        self.is_replaced = true;
    }

    fn put_back(&self) -> Fallible<()> {
        let context = self.context;
        VeConfig::put_back(&context.paths, context.ve, self.text.as_deref())
            .map_err(config_failure)?;
        for name in &self.names {
            link(context, name)?;
        }
        unlink_names(context, &self.names);
        Ok(())
    }
}

impl Drop for Former<'_> {
    fn drop(&mut self) {
        if self.is_replaced {
            return;
        }
        if let Err(failure) = self.put_back() {
            self.context.warn(&failure.message);
        }
    }
}

/// Refuses the name of another VE.
pub(crate) fn check_name(context: &Context, changes: &Changes) -> Fallible<()> {
    let Some((_, name)) = changes.iter().find(|(key, _)| *key == "NAME") else {
        return Ok(());
    };
    match named(&context.paths, name) {
        Some(other) if other != context.ve => Err(Failure::new(
            VzctlExit::NameTaken,
            format!("the name '{name}' belongs to VE {other}"),
        )),
        _ => Ok(()),
    }
}

/// Makes a name lead to the VE, in place of those it had.
pub(crate) fn link_name(context: &Context, changes: &Changes) -> Fallible<()> {
    let Some((_, name)) = changes.iter().find(|(key, _)| *key == "NAME") else {
        return Ok(());
    };
    link(context, name)?;
    unlink_names(context, std::slice::from_ref(name));
    Ok(())
}

fn link(context: &Context, name: &str) -> Fallible<()> {
    if named(&context.paths, name) == Some(context.ve) {
        return Ok(());
    }
    let dir = context.paths.names_dir();
    let path = dir.join(name);
    let target = context.paths.ve_config_file(context.ve);
    fs::create_dir_all(&dir)
        .and_then(|()| symlink(target, &path))
        .map_err(|error| Failure::new(VzctlExit::System, format!("{}: {error}", path.display())))
}

/// Takes the VE's names away but for some.
pub(crate) fn unlink_names(context: &Context, but: &[String]) {
    for name in names(context) {
        let path = context.paths.names_dir().join(&name);
        if !but.contains(&name)
            && let Err(error) = fs::remove_file(&path)
        {
            context.warn(&format!("{}: {error}", path.display()));
        }
    }
}

fn names(context: &Context) -> Vec<String> {
    let entries = fs::read_dir(context.paths.names_dir());
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| named(&context.paths, name) == Some(context.ve))
        .collect()
}
