//! Commands and types of quotactl(2).

use quota::QuotaType;

/// A command that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `Q_SYNC`
    Sync,
    /// `Q_QUOTAON`
    QuotaOn,
    /// `Q_QUOTAOFF`
    QuotaOff,
    /// `Q_GETFMT`
    GetFormat,
    /// `Q_GETINFO`
    GetInfo,
    /// `Q_SETINFO`
    SetInfo,
    /// `Q_GETQUOTA`
    GetQuota,
    /// `Q_SETQUOTA`
    SetQuota,
    /// `Q_GETNEXTQUOTA`
    GetNextQuota,
    /// `Q_XQUOTAON`
    XfsQuotaOn,
    /// `Q_XQUOTAOFF`
    XfsQuotaOff,
    /// `Q_XGETQUOTA`
    XfsGetQuota,
    /// `Q_XSETQLIM`
    XfsSetLimits,
    /// `Q_XGETQSTAT`
    XfsState,
    /// `Q_XQUOTARM`
    XfsRemove,
    /// `Q_XQUOTASYNC`
    XfsSync,
    /// `Q_XGETQSTATV`
    XfsStateVersioned,
    /// `Q_XGETNEXTQUOTA`
    XfsGetNextQuota,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 18] = [
        Self::Sync,
        Self::QuotaOn,
        Self::QuotaOff,
        Self::GetFormat,
        Self::GetInfo,
        Self::SetInfo,
        Self::GetQuota,
        Self::SetQuota,
        Self::GetNextQuota,
        Self::XfsQuotaOn,
        Self::XfsQuotaOff,
        Self::XfsGetQuota,
        Self::XfsSetLimits,
        Self::XfsState,
        Self::XfsRemove,
        Self::XfsSync,
        Self::XfsStateVersioned,
        Self::XfsGetNextQuota,
    ];

    /// The number without the type.
    ///
    /// # Source
    /// Linux `include/uapi/linux/quota.h`, `include/uapi/linux/dqblk_xfs.h`.
    pub const fn number(self) -> u32 {
        match self {
            Self::Sync => 0x0080_0001,
            Self::QuotaOn => 0x0080_0002,
            Self::QuotaOff => 0x0080_0003,
            Self::GetFormat => 0x0080_0004,
            Self::GetInfo => 0x0080_0005,
            Self::SetInfo => 0x0080_0006,
            Self::GetQuota => 0x0080_0007,
            Self::SetQuota => 0x0080_0008,
            Self::GetNextQuota => 0x0080_0009,
            Self::XfsQuotaOn => 0x5801,
            Self::XfsQuotaOff => 0x5802,
            Self::XfsGetQuota => 0x5803,
            Self::XfsSetLimits => 0x5804,
            Self::XfsState => 0x5805,
            Self::XfsRemove => 0x5806,
            Self::XfsSync => 0x5807,
            Self::XfsStateVersioned => 0x5808,
            Self::XfsGetNextQuota => 0x5809,
        }
    }

    /// The command with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|command| command.number() == number)
    }

    /// Whether it leaves something changed.
    pub const fn changes_state(self) -> bool {
        match self {
            Self::QuotaOn
            | Self::QuotaOff
            | Self::SetInfo
            | Self::SetQuota
            | Self::XfsQuotaOn
            | Self::XfsQuotaOff
            | Self::XfsSetLimits
            | Self::XfsRemove => true,
            Self::Sync
            | Self::GetFormat
            | Self::GetInfo
            | Self::GetQuota
            | Self::GetNextQuota
            | Self::XfsGetQuota
            | Self::XfsState
            | Self::XfsSync
            | Self::XfsStateVersioned
            | Self::XfsGetNextQuota => false,
        }
    }
}

/// Whose quota a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallType {
    /// `USRQUOTA`, `GRPQUOTA`
    Known(QuotaType),
    /// `PRJQUOTA`
    Project,
}

/// The first argument of quotactl(2), taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandWord {
    /// The command, if we know it.
    pub command: Option<Command>,
    /// Users, groups or projects; `None` for what no kernel knows.
    pub kind: Option<CallType>,
}

impl CommandWord {
    /// Splits `command << 8 | type`.
    pub fn split(word: u32) -> Self {
        let kind = match word & 0xff {
            0 => Some(CallType::Known(QuotaType::User)),
            1 => Some(CallType::Known(QuotaType::Group)),
            2 => Some(CallType::Project),
            _ => None,
        };
        Self {
            command: Command::from_number(word >> 8),
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_into_command_and_type() {
        // quota.h: QCMD(command, type) is command << 8 | type.
        let next = CommandWord::split(0x8000_0901);
        assert_eq!(next.command, Some(Command::GetNextQuota));
        assert_eq!(next.kind, Some(CallType::Known(QuotaType::Group)));
        assert_eq!(
            CommandWord::split(0x0058_0502).kind,
            Some(CallType::Project)
        );
        assert_eq!(
            CommandWord::split(0x0058_0500).command,
            Some(Command::XfsState)
        );
        assert_eq!(CommandWord::split(0x8000_0703).kind, None);
        assert_eq!(CommandWord::split(0x8000_0a00).command, None);
    }

    #[test]
    fn every_number_names_its_command() {
        for command in Command::ALL {
            assert_eq!(Command::from_number(command.number()), Some(command));
        }
    }
}
