//! The error names that a response may carry.

/// Why a request was not fulfilled, as the guest is told. The order is that of AWS's C library (`libnsm`), which numbers
/// them from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// No error. Never sent in an error response.
    Success,
    /// An argument is invalid. The rules of this module never lead to it.
    InvalidArgument,
    /// There is no such PCR.
    InvalidIndex,
    /// The response does not belong to the request. Clients use it among themselves.
    InvalidResponse,
    /// The PCR is locked.
    ReadOnlyIndex,
    /// No such operation, or not a request at all.
    InvalidOperation,
    /// The response does not fit into the guest's buffer. For whoever knows the buffer: the VMM.
    BufferTooSmall,
    /// The request, or a field of it, has too many bytes.
    InputTooLarge,
    /// The module failed, through no fault of the request.
    InternalError,
}

impl ErrorCode {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::InvalidArgument,
        Self::InvalidIndex,
        Self::InvalidResponse,
        Self::ReadOnlyIndex,
        Self::InvalidOperation,
        Self::BufferTooSmall,
        Self::InputTooLarge,
        Self::InternalError,
    ];

    /// The name on the wire.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::InvalidArgument => "InvalidArgument",
            Self::InvalidIndex => "InvalidIndex",
            Self::InvalidResponse => "InvalidResponse",
            Self::ReadOnlyIndex => "ReadOnlyIndex",
            Self::InvalidOperation => "InvalidOperation",
            Self::BufferTooSmall => "BufferTooSmall",
            Self::InputTooLarge => "InputTooLarge",
            Self::InternalError => "InternalError",
        }
    }
}
