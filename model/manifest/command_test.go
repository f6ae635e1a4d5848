package manifest

import (
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		command string
		want    []string
		says    string
	}{
		{`ipmitool user set password 2 {{.IpmiPass}} 20`, []string{"ipmitool", "user", "set", "password", "2", "{{.IpmiPass}}", "20"}, ""},
		{`a '{{.Serial}}' "x {{.Serial}}"`, []string{"a", "{{.Serial}}", "x {{.Serial}}"}, ""},
		{`a {{ .Serial }}/{{ .DLDir }}`, []string{"a", "{{ .Serial }}/{{ .DLDir }}"}, ""},
		{`a {{printf "%s }} 'x" .Serial}} b`, []string{"a", `{{printf "%s }} 'x" .Serial}}`, "b"}, ""},
		{"a {{printf `\\` }} b", []string{"a", "{{printf `\\` }}", "b"}, ""},
		{`{{if .DLDir}}{{.DLDir}}/{{end}}run now`, []string{"{{if .DLDir}}{{.DLDir}}/{{end}}run", "now"}, ""},
		{`run {{if .DLDir}}-d {{.DLDir}}{{end}}`, nil, "not a template"},
		{`run {{.Unknown}}`, nil, ".Unknown"},
		{`run {{.Serial`, nil, "unclosed"},
		{`run 'a`, nil, "split"},
		{` `, nil, "empty"},
		{"run \U000f0000", nil, "private use"},
	} {
		got, err := Command{Command: c.command}.Words()
		if !slices.Equal(got, c.want) || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %q, %v, want %q, %q", c.command, got, err, c.want, c.says)
		}
	}
}

func TestFill(t *testing.T) {
	vars := Variables{Serial: "S1", OSPass: "geheim"}
	for _, c := range []struct{ text, want, says string }{
		{"set {{.Serial}} {{.OSPass}}", "set S1 geheim", ""},
		{`{{if .DLDir}}{{.DLDir}}/{{end}}x`, "x", ""},
		{`{{with .Serial}}{{.}}{{end}}-x`, "S1-x", ""},
		{"{{.Unknown}}", "", "Unknown"},
		{"{{.Serial.Length}}", "", "Length"},
		{"{{.Serial", "", "unclosed"},
		{"{{shell}}", "", "shell"},
		{"{{.DLDir}}", "", "empty"},
		{"x {{index .OSPass 99}}", "", "out of range"},
		{`x {{template "y"}}`, "", "y"},
		{"x {{range 9}}{{.}}{{end}}", "", "range"},
		{"x {{with .OSPass}}{{if .}}{{range 9}}{{end}}{{end}}{{end}}", "", "range"},
		{`x {{define "y"}}{{range 9}}{{end}}{{end}}`, "", "range"},
		{`x {{"a\x00b"}}`, "", "zero byte"},
	} {
		got, err := Command{Command: c.text}.Fill(vars)
		if strings.Join(got.Argv, " ") != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: got %q, %v, want %q, %q", c.text, got, err, c.want, c.says)
		}
		if err != nil && strings.Contains(err.Error(), vars.OSPass) {
			t.Errorf("%q: the error tells the password: %v", c.text, err)
		}
	}
}

func FuzzWords(f *testing.F) {
	for _, s := range []string{"a {{.Serial}} b", `"{{.OSPass}}" 'x'`, "{{`}}`}}", "# {{.DLDir}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := Command{Command: s}.Words()
		if err == nil && len(words) == 0 {
			t.Error("no words and no error")
		}
		if filled, err := (Command{Command: s}).Fill(Likely()); err == nil && (len(filled.Argv) != len(words) || filled.Argv[0] == "") {
			t.Errorf("the words %q became %q", words, filled.Argv)
		}
	})
}
