// Package secret holds the type of text that must never be printed: passwords, tokens, passphrases of keys.
//
// A Secret prints as "[secret]" in every way that fmt, log/slog and encoding/json know. The text itself is only given by
// Reveal, so that a search for that word finds each place where a secret is used. The package does not wipe memory, and it
// does not encrypt: who keeps a secret must seal it.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Hidden is what a Secret prints as, an empty one too.
const Hidden = "[secret]"

// Secret is text that must not be printed. Reading one from JSON works; writing one to JSON gives Hidden, so a type that
// has to carry a secret over the wire converts it explicitly with Reveal. Never make a Secret the key of a map: encoding/json
// writes keys of string kind as they are.
type Secret string

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// Empty reports whether there is no text.
func (s Secret) Empty() bool { return s == "" }

// Equal compares with other in a time that does not depend on the content.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s), []byte(other)) == 1
}

// String returns Hidden.
func (s Secret) String() string { return Hidden }

// GoString returns Hidden.
func (s Secret) GoString() string { return Hidden }

// Format writes Hidden for every verb, %x and %q too.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, Hidden) }

// LogValue gives Hidden to log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Hidden) }

// MarshalJSON returns Hidden as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Hidden + `"`), nil }

// MarshalText returns Hidden, for encoders of text such as encoding/xml.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Hidden), nil }
