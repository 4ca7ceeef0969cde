//! What is special about a few commands. Python says which (`catalog/commands.py`); no worker knows a
//! command by its name.

/// The traits of one command; most commands have none.
#[derive(Debug, Default, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is independent of the others")]
pub struct Traits {
    /// Runs a script: EVAL, FCALL and their other forms.
    pub is_script: bool,
    /// Its reply may depend on what other clients do meanwhile: BLPOP, WAIT.
    pub waits_for_others: bool,
    /// Reads for a consumer group, which ends when its stream does: XREADGROUP.
    pub is_of_group: bool,
    /// Adds elements to its one key, and does nothing else: LPUSH, XADD.
    pub only_adds: bool,
    /// Has a password behind its options AUTH and AUTH2: MIGRATE.
    pub has_auth_option: bool,
    /// Writes into another database than the client's: MOVE, COPY.
    pub writes_elsewhere: bool,
    /// CLIENT CACHING still holds behind it: the subcommands of CLIENT.
    pub keeps_caching: bool,
}

impl Traits {
    /// Adds a trait by its name.
    ///
    /// # Errors
    /// When there is no such trait.
    pub fn add(&mut self, name: &str) -> Result<(), String> {
        let known = match name {
            "is_script" => &mut self.is_script,
            "waits_for_others" => &mut self.waits_for_others,
            "is_of_group" => &mut self.is_of_group,
            "only_adds" => &mut self.only_adds,
            "has_auth_option" => &mut self.has_auth_option,
            "writes_elsewhere" => &mut self.writes_elsewhere,
            "keeps_caching" => &mut self.keeps_caching,
            _ => return Err(format!("unknown trait {name:?}")),
        };
        *known = true;
        Ok(())
    }
}
