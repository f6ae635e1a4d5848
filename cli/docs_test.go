package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"gprovision/cli/unitcmd"
)

// verbsAndFlags returns for each verb of a program, such as " image build", the verbs below it and its flags.
func verbsAndFlags(t *testing.T, program string) map[string][]string {
	t.Helper()
	commands := any(&Commands{})
	if program == "gprov-unit" {
		commands = &unitcmd.Commands{}
	}
	k, err := kong.New(commands, kong.Name(program), kong.Vars{"version": ""})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, c := range completions(nil, k.Model.Node, "") {
		out[c.verb] = []string{}
		for _, w := range c.words {
			out[c.verb] = append(out[c.verb], w.text)
		}
		for _, f := range c.flags {
			out[c.verb] = append(out[c.verb], f.text)
		}
	}
	return out
}

// TestCommandsOfTheDocs: each command that a page shows has verbs and flags that there are.
func TestCommandsOfTheDocs(t *testing.T) {
	programs := map[string]map[string][]string{"gprov": verbsAndFlags(t, "gprov"), "gprov-unit": verbsAndFlags(t, "gprov-unit")}
	pages := []string{"../README.md", "../SECURITY.md", "../CONTRIBUTING.md"}
	for _, dir := range []string{"../docs", "../docs/formats"} {
		more, err := filepath.Glob(dir + "/*.md")
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	span := regexp.MustCompile("`((?:sudo |[A-Z_]+=\\S+ )*gprov(?:-unit)?\\s[^`]*)`")
	line := regexp.MustCompile(`(?m)^ *((?:sudo |[A-Z_]+=\S+ )*gprov(?:-unit)? .*)$`)
	placeholder := regexp.MustCompile(`^\[?[A-Z]+\]?$`)
	seen := 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text, shown := "", []string{}
		for i, part := range strings.Split(string(b), "```") {
			if i%2 == 0 {
				text += part
				continue
			}
			for _, m := range line.FindAllStringSubmatch(strings.ReplaceAll(part, "\\\n", " "), -1) {
				shown = append(shown, m[1])
			}
		}
		for _, m := range span.FindAllStringSubmatch(text, -1) {
			shown = append(shown, m[1])
		}
		for _, command := range shown {
			command, _, _ := strings.Cut(command, "  ") // what stands behind explains it
			if command == "gprov capture 1" {           // the first line of a file
				continue
			}
			words := strings.Fields(command)
			for words[0] == "sudo" || strings.Contains(words[0], "=") {
				words = words[1:]
			}
			have := programs[words[0]]
			verb, below := "", have[""]
			for _, w := range words[1:] {
				w = strings.Trim(w, "[],;")
				if w == "#" || w == "|" || w == ">" {
					break
				}
				if strings.HasPrefix(w, "--") {
					flag, _, _ := strings.Cut(w, "=")
					if seen++; !slices.Contains(below, flag) {
						t.Errorf("%s: %q: there is no flag %s of %s%s", page, command, flag, words[0], verb)
					}
					continue
				}
				if !slices.ContainsFunc(below, func(s string) bool { return have[verb+" "+s] != nil }) {
					continue // it is no verb, but what one takes
				}
				next := ""
				for _, one := range strings.Split(w, "|") { // "image build|verify"
					next = verb + " " + one
					switch {
					case have[next] != nil:
						seen++
					case placeholder.MatchString(one) || one == "...":
					case slices.Contains(below, "--interface"): // "gprov serve" runs by itself, so this is a value
					default:
						t.Errorf("%s: %q: there is no verb%s of %s", page, command, next, words[0])
					}
				}
				if have[next] != nil {
					verb, below = next, have[next]
				}
			}
		}
	}
	if seen < 150 {
		t.Errorf("only %d verbs and flags are seen", seen)
	}
}
