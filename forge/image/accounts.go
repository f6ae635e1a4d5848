package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// accounts checks that admin can log in once a unit has given it a password, and that nobody else can. Facts: passwd(5), shadow(5),
// group(5), nologin(5), sshd(8), and what the C library and Linux-PAM make of them: the first line of a name counts, a line with too few
// fields does not.
func (t *tree) accounts(say func(path, text, hint string)) {
	for _, file := range []string{passwdFile, shadowFile, groupFile} {
		t.form(file, say)
	}
	passwd, ok := t.files[passwdFile]
	if !ok {
		say(passwdFile, "it is missing, or not a regular file", "use a complete root filesystem")
		return
	}
	shadow, ok := t.files[shadowFile]
	if !ok {
		say(shadowFile, "it is missing, or not a regular file", "use shadow passwords (pwconv)")
		return
	}
	t.passwd(records(passwd, 7), say)
	if _, ok := fields(t.files[groupFile], admin); !ok {
		say(groupFile, "there is no group admin", "add it: groupadd admin")
	}
	t.shadow(records(shadow, 2), say)
	if _, ok := fields(passwd, admin); ok {
		if _, ok := fields(shadow, admin); !ok {
			say(shadowFile, "there is no line for admin, so a unit cannot set its password", "run pwconv")
		}
	}
}

const byteOrderMark = "\xef\xbb\xbf"

// form checks what holds for all files of accounts.
func (t *tree) form(file string, say func(path, text, hint string)) {
	b := t.files[file]
	if bytes.Contains(b, []byte("\r\n")) {
		say(file, "its lines end as those of Windows, so that the last field of each is a wrong one", "sed -i 's/\\r$//' "+file)
	}
	if bytes.HasPrefix(b, []byte(byteOrderMark)) {
		say(file, "it begins with a byte order mark, which becomes part of the first name", "sed -i '1s/^\\xef\\xbb\\xbf//' "+file)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		say(file, "it has a zero byte in it, where programs stop to read a line", "write it anew")
	}
	seen := map[string]int{}
	for _, f := range records(b, 2) {
		if seen[f[0]]++; seen[f[0]] == 2 {
			say(file, "there are two lines for "+shown(f[0])+", of which programs take the first or the last", "delete one of them")
		}
	}
}

// passwd checks who there is and who has whose rights.
func (t *tree) passwd(lines [][]string, say func(path, text, hint string)) {
	var own []string // the line of admin
	root := false
	for _, f := range lines {
		if f[0] == admin && own == nil {
			own = f
		}
		root = root || f[0] == "root" && f[2] == "0"
	}
	if own == nil {
		say(passwdFile, "there is no account admin", "add it: useradd -m -s /bin/bash admin")
	}
	if !root {
		say(passwdFile, "there is no account root with the user ID 0", "use a complete root filesystem")
	}
	for _, f := range lines {
		name, password, uid := shown(f[0]), f[1], f[2]
		if password != "x" && !locked(password) {
			say(passwdFile, "account "+name+" has its password here, where everybody can read it, or none at all", "run pwconv, and lock it: passwd -l "+name)
		}
		id, err := strconv.ParseUint(uid, 10, 32)
		switch {
		case err != nil || id == 1<<32-1:
			say(passwdFile, "account "+name+" has the user ID "+shown(uid)+", which is none", "give it a number: usermod -u NUMBER "+name)
		case id == 0 && f[0] != "root":
			say(passwdFile, "account "+name+" has the user ID 0: it is root by another name", "give it one of its own: usermod -u NUMBER "+name)
		case own != nil && f[0] != admin && strings.TrimLeft(uid, "0") == strings.TrimLeft(own[2], "0") && id != 0:
			say(passwdFile, "account "+name+" has the user ID of admin: it is admin by another name", "give it one of its own: usermod -u NUMBER "+name)
		}
		if f[0] != admin {
			t.keys(f[0], f[5], say)
		}
	}
	if own != nil {
		t.shell(own[6], say)
	}
}

// shell checks that admin's shell can be started.
func (t *tree) shell(shell string, say func(path, text, hint string)) {
	const hint = "give it a login shell that is installed: usermod -s /bin/bash admin"
	if shell == "" {
		shell = "/bin/sh" // passwd(5)
	}
	shell = strings.TrimSuffix(shell, "\r") // that is told for all lines
	at, err := t.follow(shell)
	switch base := path.Base(shell); {
	case base == "nologin" || base == "false" || base == "true" || base == "sync":
		say(passwdFile, "account admin has the shell "+shown(shell)+", with which nobody can work", hint)
	case !strings.HasPrefix(shell, "/"):
		say(passwdFile, "account admin has the shell "+shown(shell)+", which is no path", hint)
	case err != nil || t.entries[at].kind != tar.TypeReg && t.entries[at].kind != tar.TypeLink:
		say(passwdFile, "account admin has the shell "+shown(shell)+", which is not there", hint)
	}
}

// keys checks that an account that is not admin has no SSH keys. Links are followed, as sshd does.
func (t *tree) keys(name, home string, say func(path, text, hint string)) {
	for _, file := range []string{"authorized_keys", "authorized_keys2"} {
		at, err := t.follow(path.Join("/", home, ".ssh", file))
		if err != nil {
			continue
		}
		if e, ok := t.entries[at]; ok && (e.kind == tar.TypeReg && e.size > 0 || e.kind == tar.TypeLink) {
			say(shown(at), "account "+shown(name)+" may log in with an SSH key; admin alone may log in", "delete the file")
		}
	}
}

// shadow checks that nobody can log in with a password, and that admin can when it has one.
func (t *tree) shadow(lines [][]string, say func(path, text, hint string)) {
	own := false
	for _, f := range lines {
		name, password := shown(f[0]), f[1]
		switch {
		case f[0] == admin && !locked(password):
			say(shadowFile, "account admin has a password in the image, which all units would share", "lock it: passwd -l admin; each unit sets its own")
		case f[0] != admin && password == "":
			say(shadowFile, "account "+name+" may log in without a password", "lock it: passwd -l "+name)
		case f[0] != admin && !locked(password):
			say(shadowFile, "account "+name+" has a password; admin alone may log in", "lock it: passwd -l "+name)
		}
		if f[0] != admin || own {
			continue
		}
		own = true
		if days := number(f, 7); days >= 0 {
			day := time.Unix(0, 0).UTC().AddDate(0, 0, int(min(days, 1<<20)))
			say(shadowFile, "account admin expires on "+day.Format(time.DateOnly)+", and nobody can log in from then on", "chage -E -1 admin")
		}
		if number(f, 2) == 0 {
			say(shadowFile, "account admin must change its password at the first login", "chage -d 1 admin; each unit sets a password of its own")
		}
		if number(f, 4) >= 0 && number(f, 6) >= 0 {
			say(shadowFile, fmt.Sprintf("account admin is closed %d days after its password has become too old", number(f, 6)), "chage -I -1 -M -1 admin")
		}
	}
}

// number returns a field of /etc/shadow as a number, -1 for none.
func number(f []string, i int) int64 {
	if i >= len(f) {
		return -1
	}
	n, err := strconv.ParseInt(f[i], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// locked reports whether no password fits.
func locked(field string) bool { return strings.HasPrefix(field, "!") || strings.HasPrefix(field, "*") }

// fields returns the first line of a name.
func fields(b []byte, name string) ([]string, bool) {
	all := records(b, 2)
	i := slices.IndexFunc(all, func(f []string) bool { return f[0] == name })
	if i < 0 {
		return nil, false
	}
	return all[i], true
}

// records splits a file like /etc/passwd, whose lines may have any length. Lines with too few fields are left out, and what ends a line
// of Windows, and a byte order mark.
func records(b []byte, fields int) [][]string {
	var out [][]string
	for line := range bytes.SplitSeq(bytes.TrimPrefix(b, []byte(byteOrderMark)), []byte("\n")) {
		if f := strings.Split(strings.TrimSuffix(string(line), "\r"), ":"); len(f) >= fields && f[0] != "" {
			out = append(out, f)
		}
	}
	return out
}
