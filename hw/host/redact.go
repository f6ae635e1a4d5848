package host

import (
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// redacted is what a log has in the place of a secret.
const redacted = "***"

// overlap is how much of an output goes whose beginning was not kept: the end of a secret may stand there, which nobody would know, bytes.
const overlap = 4096

// redact returns an output without secrets.
func redact(out *tail, secrets []string) []byte {
	b := out.bytes()
	if out.lost {
		b = b[min(overlap, len(b)):]
	}
	var forms []string
	for _, s := range secrets {
		if s != "" {
			forms = append(forms, s, hex.EncodeToString([]byte(s)), base64.RawStdEncoding.EncodeToString([]byte(s)),
				base64.RawURLEncoding.EncodeToString([]byte(s)))
		}
	}
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) }) // one may be a part of another
	for _, f := range forms {
		b = spaced(f).ReplaceAll(b, []byte(redacted))
	}
	return b
}

// spaced returns what finds a text in whatever case, also with white space between its characters, as programs break lines.
func spaced(text string) *regexp.Regexp {
	var parts []string
	for _, r := range text {
		if unicode.IsSpace(r) {
			parts = append(parts, `\s`)
		} else {
			parts = append(parts, regexp.QuoteMeta(string(r)))
		}
	}
	return regexp.MustCompile(`(?i)` + strings.Join(parts, `\s*`))
}
