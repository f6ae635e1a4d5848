package support

import (
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"gprovision/model/secret"
	"gprovision/unit/state"
)

// cleaner takes secrets out of texts, whatever wrote them: logs, configuration in the forms that are common, command lines, requests. It
// rather takes too much than too little.
type cleaner struct {
	literal *strings.Replacer
	forms   []form
	// A name whose value is a secret, with what stands between them.
	assigned, flag form
}

// form is what a secret looks like. The first group of the expression stays, the rest goes.
type form struct {
	*regexp.Regexp
	// Some of these are in each line that can match, in lower case: the expressions are slow, and most lines have nothing.
	hints []string
	whole bool // matches reach over lines
}

// in reports whether a line, in lower case, can match.
func (f form) in(lower string) bool {
	return slices.ContainsFunc(f.hints, func(h string) bool { return strings.Contains(lower, h) })
}

// Names of secrets, as regular expressions. Those of the second list are ordinary words too, and count where they stand alone, or behind
// a hyphen or an underscore.
const (
	secretNames = `password|passwd|passphrase|passcode|passwort|kennwort|secret|token|psk|private[_-]?key|preshared[_-]?key|pre[_-]shared[_-]?key|api[_-]?key|access[_-]?key|auth[_-]?key|encryption[_-]?key|wep[_-]?key|signing[_-]?key|master[_-]?key|session[_-]?id|set-cookie|cookie|authorization`
	shortNames  = `pass|pwd|pw|pin|community`
	name        = `(?:[\w.-]*(?:` + secretNames + `)[\w.-]*|(?:[\w.-]*[_.-])?(?:` + shortNames + `)[0-9]?)`
	headers     = `(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]*(?:auth|token|key|secret)[\w-]*)`
	quote       = `(?:\\*["'])`
)

func newCleaner(v *state.Volume) *cleaner {
	var known []string
	if v != nil {
		if key, err := v.ReadKey(); err == nil {
			seed := key.Seed()
			for _, s := range []string{base64.StdEncoding.EncodeToString(seed), base64.RawURLEncoding.EncodeToString(seed), hex.EncodeToString(seed)} {
				known = append(known, s, secret.Hidden)
			}
		}
	}
	c := &cleaner{literal: strings.NewReplacer(known...)}
	for _, f := range []struct {
		form  string
		hints []string
		whole bool
	}{
		// Hashes of passwords: of crypt(3), as LDAP and htpasswd write them, of DES in a line of shadow(5), of smbpasswd(5).
		{`()\$[0-9a-z]{1,8}\$[./A-Za-z0-9$,=+-]{8,250}`, []string{"$"}, false},
		{`(?i)()\{(?:S?SHA[0-9]*|S?MD5|CRYPT|PBKDF2[\w-]*)\}[A-Za-z0-9+/=.$,]{6,}`, []string{"{"}, false},
		{`(?m)(^[^:\s]{1,64}:)[^:*!\s][^:\s]*(?::[0-9]*){3}:[0-9]*:[0-9]*:[0-9]*:`, []string{"::", ":0:", ":1:", ":7:"}, false},
		{`(?i)(\b)[0-9A-FX]{32}:[0-9A-F]{32}\b`, []string{":::", ":[u", ":["}, false},
		// Keys: PEM and PGP, age, minisign, WireGuard's own output.
		{`(?s)(-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----).*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)`, []string{"private key"}, true},
		{`()AGE-SECRET-KEY-1[0-9A-Za-z]+`, []string{"age-secret-key-"}, false},
		{`()\bRW(?:RTY|QAA)EIy[A-Za-z0-9+/=]{20,}`, []string{"rwrtyeiy", "rwqaaeiy"}, false},
		{`(?i)(\bpr(?:ivate|eshared) key:[ \t]*)\S+`, []string{" key:"}, false},
		// Tokens that show by themselves what they are.
		{`()\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*`, []string{"eyj"}, false},
		{`()\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|AKIA|ASIA)[A-Za-z0-9_-]{12,}`, []string{"gh", "glpat-", "xox", "sk-", "akia", "asia"}, false},
		// Requests, and the whole rest of their lines: a cookie has several parts.
		{`(?im)(^[ \t<>*]*` + headers + `[ \t]*:[ \t]*)[^"'\\\s\[{][^\r\n]*`, []string{"authorization", "cookie", "x-"}, false},
		{`(?i)(\b` + headers + `[ \t]*:[ \t]*)[^"'\\\s\[{][^"'\\\r\n]*`, []string{"authorization", "cookie", "x-"}, false},
		{`(?i)(\b(?:bearer|basic|digest|negotiate) )[A-Za-z0-9+/=._~-]{6,}`, []string{"bearer", "basic", "digest", "negotiate"}, false},
		{`(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s"'<>\\]+@`, []string{"://"}, false},
		{`(?i)(\b[a-z][a-z0-9+.-]*://)[^\s"'<>\\@/:]*:[^\s"'<>\\@]+@`, []string{"://"}, false},
		{`(?i)(\benrol=)[^\s"'\\]+`, []string{"enrol="}, false},
		// Command lines of programs that have short flags for this, netrc(5), snmpd.conf(5), XML.
		{`(?i)((?:^|\s)(?:curl|wget)\b[^\n]*?\s(?:-u|--user|--proxy-user|-U)[ =]?['"]?[^\s:'"]*:)[^\s'"]+`, []string{"curl", "wget"}, false},
		{`(?i)((?:^|\s)(?:-u|--user|--proxy-user)[ =]?['"]?[^\s:'"/]+:)[^\s'"]+`, []string{"-u", "-proxy-u"}, false},
		{`(\bsshpass\s+-p\s*)\S+`, []string{"sshpass"}, false},
		{`(\bipmitool\b[^\n]*?\s-P\s*)\S+`, []string{"ipmitool"}, false},
		{`(\bipmitool\b[^\n]*?\bset password \S+ )\S+`, []string{"ipmitool"}, false},
		{`(\bmysql\w*\b[^\n]*?\s-p)[^\s-]\S*`, []string{"mysql"}, false},
		{`(\bpass:)[^\s:"']+`, []string{"pass:"}, false},
		{`(?i)(\b(?:machine|login)\s+\S+\s+(?:login\s+\S+\s+)?(?:account\s+\S+\s+)?password\s+)\S+`, []string{"password"}, true},
		{`(?im)(^[ \t]*(?:login\s+\S+\s+)?password[ \t]+)\S+[ \t]*$`, []string{"password"}, false},
		{`(?im)(^[ \t]*(?:rocommunity6?|rwcommunity6?|com2sec\s+\S+\s+\S+)[ \t]+)\S+`, []string{"community", "com2sec"}, false},
		{`(?i)(<` + name + `(?:\s[^<>]*)?>)[^<]+`, []string{"<"}, false},
	} {
		c.forms = append(c.forms, form{regexp.MustCompile(f.form), f.hints, f.whole})
	}
	names := []string{"pass", "kennwort", "secret", "token", "psk", "key", "session", "cookie", "authorization", "pw", "pin", "community"}
	c.assigned = form{regexp.MustCompile(`(?i)(?:` + quote + `|\b|_)` + name + quote + `?\]?[ \t]*(?:=>|:=|[:=])[ \t]*`), names, false}
	c.flag = form{regexp.MustCompile(`(?i)(?:^|[\s"'\[,])--?` + name + `(?:` + quote + `?[ \t]*,?[ \t]*` + quote + `|[ \t]+)`), names, false}
	return c
}

func (c *cleaner) text(s string) string {
	s = c.literal.Replace(s)
	low := lower(s)
	for _, f := range c.forms {
		if f.in(low) {
			s = f.replace(s)
			low = lower(s)
		}
	}
	return c.flag.clear(c.assigned.clear(s, true), false)
}

func (c *cleaner) bytes(b []byte) []byte { return []byte(c.text(string(b))) }

// lower is s with its letters of ASCII in lower case, of the same length.
func lower(s string) string {
	b := []byte(s)
	for i, ch := range b {
		if ch >= 'A' && ch <= 'Z' {
			b[i] = ch + 'a' - 'A'
		}
	}
	return string(b)
}

// matches returns the places of f in s, as regexp.FindAllStringSubmatchIndex does.
func (f form) matches(s string) [][]int {
	if f.whole {
		return f.FindAllStringSubmatchIndex(s, -1)
	}
	var out [][]int
	low, at := lower(s), 0
	for line := range strings.Lines(s) {
		if f.in(low[at : at+len(line)]) {
			for _, m := range f.FindAllStringSubmatchIndex(strings.TrimSuffix(line, "\n"), -1) {
				for i := range m {
					m[i] += at
				}
				out = append(out, m)
			}
		}
		at += len(line)
	}
	return out
}

// replace hides what f matches behind its first group.
func (f form) replace(s string) string {
	var b strings.Builder
	done := 0
	for _, m := range f.matches(s) {
		if strings.HasPrefix(s[m[3]:m[1]], secret.Hidden) {
			continue // by an earlier form
		}
		b.WriteString(s[done:m[3]] + secret.Hidden)
		done = m[1]
	}
	return b.String() + s[done:]
}

// clear hides the value that follows each match of f. With lines a value that is not quoted, and whose name begins its line, is the
// rest of that line. Quotes stay, so that what was JSON stays it.
func (f form) clear(s string, lines bool) string {
	var b strings.Builder
	done := 0
	for _, m := range f.matches(s) {
		if m[0] < done {
			continue // inside of a value
		}
		line := s[strings.LastIndexByte(s[:m[0]], '\n')+1 : m[0]]
		from, to, hidden := value(line, s[m[0]:m[1]], s[m[1]:], lines)
		if from == to {
			continue
		}
		b.WriteString(s[done:m[1]+from] + hidden)
		done = m[1] + to
	}
	return b.String() + s[done:]
}

// value finds the value at the beginning of s and returns what goes, and what comes in its place. line is what stands before its name on
// the line, name the name with what is between them.
func value(line, name, s string, lines bool) (from, to int, hidden string) {
	if open := opening(s); open != "" {
		return len(open), len(open) + body(s[len(open):], open), secret.Hidden
	}
	if n := strings.TrimRight(name, " \t"); strings.HasSuffix(n, `"`) || strings.HasSuffix(n, `'`) {
		return 0, body(s, n[len(strings.TrimRight(n, `\"'`)):]), secret.Hidden // its quote is in the match already
	}
	switch {
	case s == "", !lines && s[0] == '-': // nothing, or another flag
		return 0, 0, ""
	case lines && (s[0] == '|' || s[0] == '>'):
		if n := indented(line, s); n > 0 {
			return 0, n, secret.Hidden
		}
	case strings.HasPrefix(s, secret.Hidden):
		return 0, 0, ""
	case s[0] == '[' || s[0] == '{':
		n := balanced(s)
		hidden = secret.Hidden
		if at := strings.IndexAny(s[:n], `"'`); at >= 0 {
			open := s[len(strings.TrimRight(s[:at], `\`)) : at+1]
			hidden = open + hidden + open
		}
		return 0, n, hidden
	}
	if before := strings.TrimLeft(line, " \t-"); lines && (before == "" || before == "export " || before == "set " || before == "Environment=") {
		n := strings.IndexAny(s, "\r\n")
		if n < 0 {
			n = len(s)
		}
		return 0, len(strings.TrimRight(s[:n], " \t,")), secret.Hidden
	}
	if n := strings.IndexAny(s, " \t\r\n\"',;&)}]>\\"); n >= 0 {
		return 0, n, secret.Hidden
	}
	return 0, len(s), secret.Hidden
}

// opening returns the quote with which s begins, with the backslashes before it. It returns "" if there is none.
func opening(s string) string {
	if n := strings.IndexAny(s, `"'`); n >= 0 && strings.Trim(s[:n], `\`) == "" {
		return s[:n+1]
	}
	return ""
}

// body is the length of a quoted value, up to the quote that ends it, or to the end of the line. Where a text with quotes was quoted again,
// that quote has backslashes before it, as open has. A backslash of the value itself is written there as twice len(open) of them.
func body(s, open string) int {
	backslashes := 0
	for i := range len(s) {
		switch {
		case s[i] == '\n' && backslashes%2 == 0:
			return i
		case s[i] == '\\':
			backslashes++
			continue
		case s[i] == open[len(open)-1] && backslashes%(2*len(open)) == len(open)-1:
			return i + 1 - len(open)
		}
		backslashes = 0
	}
	return len(s)
}

// balanced is the length of a list or an object at the beginning of s, or of the line if it does not end there.
func balanced(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '\n':
			return i
		case '"', '\'', '\\':
			if open := opening(s[i:]); open != "" {
				i += len(open) + body(s[i+len(open):], open) + len(open) - 1
			}
		}
	}
	return len(s)
}

// indented is the length of a block of YAML: all lines that are further in than that of its name. 0: there is none.
func indented(line, s string) int {
	depth := func(l string) int { return len(l) - len(strings.TrimLeft(l, " ")) }
	head, rest, more := strings.Cut(s, "\n")
	if !more || strings.Trim(head, "|>+-0123456789 \t\r") != "" {
		return 0
	}
	n := len(head)
	for next := range strings.SplitSeq(rest, "\n") {
		if strings.TrimSpace(next) != "" && depth(next) <= depth(line) {
			break
		}
		n += 1 + len(next)
	}
	return n
}
