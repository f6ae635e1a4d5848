// Package page compares pages of docs/ with the code that they speak of. It is for tests: the package that has a number, a default or a
// list holds the page to it.
package page

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// Says is an error unless the page has each of the sentences, or parts of sentences. Line breaks and blanks are the same.
func Says(docs fs.FS, name string, sentences ...string) error {
	b, err := fs.ReadFile(docs, name)
	if err != nil {
		return err
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	var missing []string
	for _, s := range sentences {
		if !strings.Contains(text, strings.Join(strings.Fields(s), " ")) {
			missing = append(missing, s)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("docs/%s does not say: %s", name, strings.Join(missing, "; "))
	}
	return nil
}

// Rows returns the rows of the tables below a heading, or below a line that begins so, up to the next heading: each is its cells, without
// blanks around them. The heads of tables are rows too, the lines below them are not.
func Rows(docs fs.FS, name, heading string) ([][]string, error) {
	b, err := fs.ReadFile(docs, name)
	if err != nil {
		return nil, err
	}
	_, text, ok := strings.Cut("\n"+string(b), "\n"+heading)
	if !ok {
		return nil, fmt.Errorf("docs/%s has no line that begins with %q", name, heading)
	}
	rule := regexp.MustCompile(`^[|: -]+$`)
	var out [][]string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			break
		}
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || rule.MatchString(line) {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i, c := range cells {
			cells[i] = strings.TrimSpace(c)
		}
		out = append(out, cells)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("docs/%s has no table below %q", name, heading)
	}
	return out, nil
}

// Codes returns what stands between backquotes in a text.
func Codes(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}
