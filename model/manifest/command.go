package manifest

import (
	"errors"
	"fmt"
	"strings"

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
		if err := badTemplate(words[i]); err != nil {
			return nil, fmt.Errorf("the word %q: %w", words[i], err)
		}
	}
	return words, nil
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
