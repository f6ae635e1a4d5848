package boot

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// configs are the curated configuration fragments. The version in a name is that of the kernel source it is for.
//
//go:embed config/linux-*.config
var configs embed.FS

// option is one line of a kernel configuration: the value as it is written there, "n" for one that is not set.
type option struct{ name, value string }

func (o option) String() string {
	if o.value == "n" {
		return "# " + o.name + " is not set"
	}
	return o.name + "=" + o.value
}

var (
	setLine     = regexp.MustCompile(`^(CONFIG_[A-Za-z0-9_]+)=(y|m|n|-?[0-9]+|0x[0-9A-Fa-f]+|"(?:[^"\\]|\\.)*")$`)
	notSetLine  = regexp.MustCompile(`^# (CONFIG_[A-Za-z0-9_]+) is not set$`)
	configName  = regexp.MustCompile(`^linux-([0-9]+\.[0-9]+(?:\.[0-9]+)?)\.config$`)
	localSuffix = regexp.MustCompile(`^[-+._A-Za-z0-9]{0,48}$`)
)

// parseConfig reads a configuration or a fragment of one. An option that is there twice is an error, as is a line that is
// neither an option, a comment nor empty.
func parseConfig(name string, b []byte) ([]option, error) {
	var out []option
	seen := map[string]bool{}
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimRight(line, " \t\r")
		var o option
		switch m := setLine.FindStringSubmatch(line); {
		case m != nil:
			o = option{m[1], m[2]}
		case notSetLine.MatchString(line):
			o = option{notSetLine.FindStringSubmatch(line)[1], "n"}
		case line == "" || line[0] == '#':
			continue
		default:
			return nil, fmt.Errorf("%s: line %d: %q is no option of a kernel configuration", name, i+1, line)
		}
		if seen[o.name] {
			return nil, fmt.Errorf("%s: line %d: %s is there twice", name, i+1, o.name)
		}
		seen[o.name] = true
		out = append(out, o)
	}
	return out, nil
}

// mergeConfig returns base with the options of over in place of its own, those that are new at the end.
func mergeConfig(base, over []option) []option {
	out := slices.Clone(base)
	for _, o := range over {
		if i := slices.IndexFunc(out, func(b option) bool { return b.name == o.name }); i >= 0 {
			out[i] = o
		} else {
			out = append(out, o)
		}
	}
	return out
}

func formatConfig(options []option) []byte {
	var b strings.Builder
	for _, o := range options {
		b.WriteString(o.String() + "\n")
	}
	return []byte(b.String())
}

// OptionError says which options of a kernel configuration did not take effect.
type OptionError struct {
	// Lines have one option each: what was asked for and what came out.
	Lines []string
}

func (e *OptionError) Error() string {
	return "options of the kernel configuration did not take effect: " + strings.Join(e.Lines, "; ")
}

// Hint says what to do next.
func (e *OptionError) Hint() string {
	return "an option takes effect only with all that it depends on: search for it in the Kconfig files of the source, and add what is missing to the fragment"
}

// checkConfig compares what was asked for with the final configuration. The error is an *OptionError with all differences.
func checkConfig(want, got []option) error {
	final := map[string]string{}
	for _, o := range got {
		final[o.name] = o.value
	}
	var e OptionError
	for _, o := range want {
		v, ok := final[o.name]
		if v == o.value || o.value == "n" && !ok {
			continue
		}
		if !ok {
			v = "not there"
		}
		e.Lines = append(e.Lines, fmt.Sprintf("%s: want %s, got %s", o.name, o.value, v))
	}
	if len(e.Lines) > 0 {
		return &e
	}
	return nil
}

// configVersion returns VERSION of a name linux-VERSION.config.
func configVersion(name string) (string, error) {
	m := configName.FindStringSubmatch(path.Base(name))
	if m == nil {
		return "", fmt.Errorf("%s: want a name like linux-6.1.config, which says the version of the source", path.Base(name))
	}
	return m[1], nil
}

// newestConfig returns the name and content of the newest curated fragment.
func newestConfig() (string, []byte, error) {
	all, err := configs.ReadDir("config")
	if err != nil || len(all) == 0 {
		return "", nil, errors.Join(errors.New("no curated kernel configuration"), err)
	}
	name := all[0].Name()
	for _, e := range all[1:] {
		if older(name, e.Name()) {
			name = e.Name()
		}
	}
	b, err := configs.ReadFile("config/" + name)
	return name, b, err
}

// quoteConfig returns s as the value of a string option.
func quoteConfig(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
