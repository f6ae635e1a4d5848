package manifest

import (
	"errors"
	"fmt"
	"strings"
	"text/template"

	"github.com/google/shlex"
)

// Marks of an action while a command is split: characters for private use, which no command has.
const (
	actionFirst = 0xf0000
	actionLast  = 0xffffd
)

// Words splits the command as a shell would, and leaves its templates alone: what {{...}} stands for becomes part of the word that it
// stands in, whatever characters it turns out to have. A word may be empty once it is filled in; it stays a word.
//
// Variables do not reach beyond a word: an action that begins in one and ends in another, such as {{if ...}} around several words, is an
// error.
func (c Command) Words() ([]string, error) {
	plain, actions, err := c.takeActions()
	if err != nil {
		return nil, err
	}
	words, err := shlex.Split(plain)
	if err != nil {
		return nil, fmt.Errorf("split command %q: %w", c.Command, err)
	}
	if len(words) == 0 {
		return nil, errors.New("the command is empty")
	}
	for i, w := range words {
		var b strings.Builder
		for _, r := range w {
			if r >= actionFirst && r <= actionLast {
				b.WriteString(actions[r-actionFirst])
			} else {
				b.WriteRune(r)
			}
		}
		words[i] = b.String()
		if _, err := parseTemplate(words[i]); err != nil {
			return nil, fmt.Errorf("the word %q: %w", words[i], err)
		}
	}
	return words, nil
}

// Filled is a command whose variables are filled in.
type Filled struct {
	// Argv is the program and its arguments.
	Argv []string
	// Path and LibPath are put in front of PATH and LD_LIBRARY_PATH, unless they are empty.
	Path, LibPath string
}

// Fill fills in the variables of a command. Each value stays in the word that it stands in.
func (c Command) Fill(v Variables) (Filled, error) {
	argv, err := c.Words()
	if err != nil {
		return Filled{}, err
	}
	for i, w := range argv {
		if argv[i], err = fill(w, v); err != nil {
			return Filled{}, err
		}
	}
	if argv[0] == "" {
		return Filled{}, errors.New("the command is empty")
	}
	out := Filled{Argv: argv}
	if out.Path, err = fill(c.AddPath, v); err != nil {
		return Filled{}, err
	}
	out.LibPath, err = fill(c.AddLibPath, v)
	return out, err
}

// fill fills in one template. What it becomes goes to a program, so it has no zero byte.
func fill(text string, v Variables) (string, error) {
	t, err := parseTemplate(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", err
	}
	if strings.ContainsRune(b.String(), 0) {
		return "", fmt.Errorf("%q has a zero byte", text)
	}
	return b.String(), nil
}

// parseTemplate reads a template. Its variables are those of Variables, and it does not loop: none of them has parts.
func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("command").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("not a template: %s", strings.TrimPrefix(err.Error(), "template: "))
	}
	for _, part := range t.Templates() {
		if part.Tree == nil {
			continue
		}
		if err := unknownField(part.Root); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Known returns what the commands of a step see of v: the passwords only around the steps that set them, and the directory of its files
// only if it has some.
func (v Variables) Known(when When, files bool) Variables {
	if when != RunBeforePWSet && when != RunAfterPWSet {
		v.BiosPass, v.IpmiPass, v.OSPass = "", "", ""
	}
	if !files {
		v.DLDir = ""
	}
	return v
}

// Likely are variables of a unit as they may be, to try commands with.
func Likely() Variables {
	const password = "0123456789abcdef"
	return Variables{RecoveryDir: "/mnt/recovery", DLDir: "/tmp/step-1", Serial: "SN-0123456789",
		BiosPass: password, IpmiPass: password, OSPass: password}
}

// takeActions returns the command with one character in the place of each {{...}}, and what they stand for.
func (c Command) takeActions() (plain string, actions []string, err error) {
	var b strings.Builder
	rest := c.Command
	if strings.ContainsFunc(rest, func(r rune) bool { return r >= actionFirst && r <= actionLast }) {
		return "", nil, fmt.Errorf("split command %q: it has characters for private use", c.Command)
	}
	for {
		before, after, found := strings.Cut(rest, "{{")
		b.WriteString(before)
		if !found {
			return b.String(), actions, nil
		}
		n := actionEnd(after)
		if n < 0 || len(actions) > actionLast-actionFirst {
			return "", nil, fmt.Errorf("split command %q: unclosed {{", c.Command)
		}
		b.WriteRune(rune(actionFirst + len(actions)))
		actions = append(actions, "{{"+after[:n])
		rest = after[n:]
	}
}

// actionEnd returns the length of an action with its "}}", -1 if it has none. "}}" in the strings of an action does not end it.
func actionEnd(s string) int {
	var quote byte
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case quote != 0 && ch == '\\' && quote != '`':
			i++
		case quote != 0:
			if ch == quote {
				quote = 0
			}
		case ch == '"' || ch == '`' || ch == '\'':
			quote = ch
		case strings.HasPrefix(s[i:], "}}"):
			return i + 2
		}
	}
	return -1
}
