package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// CompletionCmd is "gprov completion".
type CompletionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help returns what --help prints below the usage.
func (*CompletionCmd) Help() string {
	return `Prints a script that lets the shell complete verbs, flags and what flags take. It is made from the verbs of this very program:
make it again after an update.

Examples:
  source <(gprov completion bash)
  gprov completion bash > /etc/bash_completion.d/gprov
  gprov completion zsh > "${fpath[1]}/_gprov"
  gprov completion fish > ~/.config/fish/completions/gprov.fish`
}

// Run prints the script.
func (s *CompletionCmd) Run(c *Context) error {
	k, err := parser(c, &Commands{})
	if err != nil {
		return err
	}
	list := completions(nil, k.Model.Node, "")
	script := map[string]func(string, []completion) string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[s.Shell]
	_, err = io.WriteString(c.Stdout, script(k.Model.Name, list))
	return err
}

// completion is what can be typed behind one verb.
type completion struct {
	// verb is the words of the verb, each with a space in front; empty: the program itself.
	verb string
	// words are the verbs below it.
	words []described
	flags []completedFlag
	// files reports whether arguments are files.
	files bool
}

type described struct{ text, help string }

type completedFlag struct {
	described
	// takes reports whether the flag has a value.
	takes bool
	// repeats reports whether the flag may be given again.
	repeats bool
	// values are the only values that it can have, if there are such.
	values []string
	// kind is what the value is: a file, a directory, or anything else.
	kind valueKind
	// hint stands for the value in texts for people.
	hint string
}

// valueKind is what a shell can offer for a value.
type valueKind int

const (
	anyValue valueKind = iota
	fileValue
	dirValue
)

// completions appends what the node and all nodes below it offer.
func completions(out []completion, n *kong.Node, verb string) []completion {
	c := completion{verb: verb}
	levels := n.AllFlags(true)
	if d := n.DefaultCmd; d != nil { // what is typed without its name
		levels = append(levels, d.Flags)
	}
	for _, level := range levels {
		for _, f := range level {
			values := []string(nil)
			if f.Tag.Enum != "" {
				values = f.EnumSlice()
			}
			c.flags = append(c.flags, completedFlag{
				described: described{"--" + f.Name, f.Help}, takes: !f.IsBool(), repeats: f.IsCumulative(), values: values,
				kind: kindOf(f.Tag), hint: strings.Trim(f.FormatPlaceHolder(), `"`),
			})
		}
	}
	for _, p := range n.Positional {
		for _, v := range p.EnumSlice() {
			if p.Tag.Enum != "" {
				c.words = append(c.words, described{v, p.Help})
			}
		}
		c.files = c.files || p.Tag.Enum == "" && !slices.Contains([]string{"unit"}, p.Name)
	}
	for _, child := range n.Children {
		if !child.Hidden && child.Type == kong.CommandNode {
			c.words = append(c.words, described{child.Name, child.Help})
		}
	}
	out = append(out, c)
	for _, child := range n.Children {
		if !child.Hidden && child.Type == kong.CommandNode {
			out = completions(out, child, verb+" "+child.Name)
		}
	}
	return out
}

// kindOf reads from a flag's placeholder what its value is.
func kindOf(t *kong.Tag) valueKind {
	word, _, _ := strings.Cut(t.PlaceHolder, "[")
	word, _, _ = strings.Cut(word, ":")
	switch {
	case word == "DIR" || t.Type == "existingdir":
		return dirValue
	case slices.Contains([]string{"FILE", "PATH", "PUB", "LOCAL"}, word) || t.Type == "path" || t.Type == "existingfile":
		return fileValue
	}
	return anyValue
}

// quote makes one word for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// quoteAll quotes each word and puts sep between them.
func quoteAll(words []string, sep string) string {
	var out []string
	for _, w := range words {
		out = append(out, quote(w))
	}
	return strings.Join(out, sep)
}

func verbsOf(list []completion) []string {
	var out []string
	for _, c := range list[1:] {
		out = append(out, c.verb)
	}
	return out
}

func bashScript(name string, list []completion) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# bash completion for %[1]s, made by "%[1]s completion bash"
_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb='' words='' flags='' kind='' word
	if [[ $cur == = ]]; then
		cur=''
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case "$verb $word" in
		%[2]s) verb+=" $word" ;;
		esac
	done
	case "$verb $prev" in
`, name, quoteAll(verbsOf(list), "|"))
	for _, c := range list {
		by := map[string][]string{}
		var order []string
		for _, f := range c.flags {
			if !f.takes {
				continue
			}
			do := map[valueKind]string{anyValue: "kind=none", fileValue: "kind=file", dirValue: "kind=dir"}[f.kind]
			if len(f.values) > 0 {
				do = "kind=none words=" + quote(strings.Join(f.values, " "))
			}
			if by[do] == nil {
				order = append(order, do)
			}
			by[do] = append(by[do], c.verb+" "+f.text)
		}
		for _, do := range order {
			fmt.Fprintf(&b, "\t%s) %s ;;\n", quoteAll(by[do], "|"), do)
		}
	}
	b.WriteString("\tesac\n\t[[ $kind ]] || case \"$verb\" in\n")
	for _, c := range list {
		var words, flags []string
		for _, w := range c.words {
			words = append(words, w.text)
		}
		for _, f := range c.flags {
			flags = append(flags, f.text)
		}
		kind := "none"
		if c.files {
			kind = "file"
		}
		fmt.Fprintf(&b, "\t%s) kind=%s words=%s flags=%s ;;\n", quote(c.verb), kind, quote(strings.Join(words, " ")), quote(strings.Join(flags, " ")))
	}
	fmt.Fprintf(&b, `	esac
	COMPREPLY=()
	if [[ $cur == -* || -z $words && $kind == none ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
	elif [[ $kind == none ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	elif [[ $kind == dir ]]; then
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		compopt -o filenames 2>/dev/null
	else
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames 2>/dev/null
	fi
}
complete -F _%[1]s %[1]s
`, name)
	return b.String()
}

func zshScript(name string, list []completion) string {
	// _arguments takes its specifications apart at colons and brackets.
	spec := strings.NewReplacer(`\`, `\\`, ":", `\:`, "[", `\[`, "]", `\]`)
	var b strings.Builder
	fmt.Fprintf(&b, `#compdef %[1]s
# zsh completion for %[1]s, made by "%[1]s completion zsh"
_%[1]s() {
	local verb='' word
	local -a list
	for word in ${words[2,CURRENT-1]}; do
		case "$verb $word" in
		%[2]s) verb+=" $word" ;;
		esac
	done
	case "$verb" in
`, name, quoteAll(verbsOf(list), "|"))
	for _, c := range list {
		fmt.Fprintf(&b, "\t%s)\n", quote(c.verb))
		rest := "'*: :'"
		if c.files {
			rest = "'*:file:_files'"
		}
		if len(c.words) > 0 {
			b.WriteString("\t\tlist=(\n")
			for _, w := range c.words {
				fmt.Fprintf(&b, "\t\t\t%s\n", quote(strings.ReplaceAll(w.text, ":", `\:`)+":"+w.help))
			}
			b.WriteString("\t\t)\n")
			rest = `'*:: :{ _describe -t commands command list }'`
		}
		b.WriteString("\t\t_arguments")
		for _, f := range c.flags {
			s := spec.Replace(f.text)
			if f.repeats {
				s = "*" + s
			}
			if f.takes {
				s += "="
			}
			s += "[" + spec.Replace(f.help) + "]"
			if f.takes {
				does := map[valueKind]string{anyValue: " ", fileValue: "_files", dirValue: "_files -/"}[f.kind]
				if len(f.values) > 0 {
					does = "(" + strings.Join(f.values, " ") + ")"
				}
				s += ":" + spec.Replace(f.hint) + ":" + does
			}
			fmt.Fprintf(&b, " \\\n\t\t\t%s", quote(s))
		}
		fmt.Fprintf(&b, " \\\n\t\t\t%s\n\t\t;;\n", rest)
	}
	fmt.Fprintf(&b, `	esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
	_%[1]s "$@"
else
	compdef _%[1]s %[1]s
fi
`, name)
	return b.String()
}

func fishScript(name string, list []completion) string {
	word := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	var verbs []string
	for _, v := range verbsOf(list) {
		verbs = append(verbs, word(v))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# fish completion for %[1]s, made by "%[1]s completion fish"
function __%[1]s_at
	set -l verb ''
	set -l words (commandline -opc)
	for word in $words[2..-1]
		switch "$verb $word"
			case %[2]s
				set verb "$verb $word"
		end
	end
	test "$verb" = "$argv[1]"
end
complete -c %[1]s -f
`, name, strings.Join(verbs, " "))
	for _, c := range list {
		begin := fmt.Sprintf("complete -c %s -n %s", name, word("__"+name+"_at "+word(c.verb)))
		if c.files {
			fmt.Fprintf(&b, "%s -F\n", begin)
		}
		for _, w := range c.words {
			fmt.Fprintf(&b, "%s -a %s -d %s\n", begin, word(w.text), word(w.help))
		}
		for _, f := range c.flags {
			takes := ""
			switch {
			case !f.takes:
			case len(f.values) > 0:
				takes = " -x -a " + word(strings.Join(f.values, " "))
			case f.kind == fileValue:
				takes = " -r -F"
			case f.kind == dirValue:
				takes = " -x -a '(__fish_complete_directories)'"
			default:
				takes = " -x"
			}
			fmt.Fprintf(&b, "%s -l %s%s -d %s\n", begin, strings.TrimPrefix(f.text, "--"), takes, word(f.help))
		}
	}
	return b.String()
}
