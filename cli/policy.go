package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/model/policy"
	"gprovision/model/source"
)

// PolicyCmd are the verbs about policies.
type PolicyCmd struct {
	Check PolicyCheckCmd `cmd:"" help:"Explain everything that is wrong with a policy, and show what it means."`
	Show  PolicyShowCmd  `cmd:"" help:"Show each value of a policy that counts, and what it means."`
}

// PolicyCheckCmd checks a policy.
type PolicyCheckCmd struct {
	File string `arg:"" help:"Policy to check."`
	JSON bool   `name:"json" help:"Print the problems as JSON."`
}

// Help returns the examples of the verb.
func (*PolicyCheckCmd) Help() string {
	return `Examples:

  gprov policy check policy.json
  gprov policy check --json policy.json

A key that is not known is refused: one that begins with an underscore is a comment. Warnings do not change the exit status.`
}

// Run prints the problems, and what the policy means if there are none. It is an error if no artifact could be built with it.
func (p *PolicyCheckCmd) Run(c *Context) error {
	pol, ps, err := loadPolicy(p.File)
	if err != nil {
		return err
	}
	if source.Join(ps) == nil && !p.JSON {
		if err := printPolicy(c.Stdout, "", pol); err != nil {
			return err
		}
	}
	return reportProblems(c, p.File, ps, p.JSON)
}

// PolicyShowCmd shows a policy.
type PolicyShowCmd struct {
	File string `arg:"" help:"Policy to show."`
	JSON bool   `name:"json" help:"Print the keys, their values and meaning as JSON."`
}

// Help returns the examples of the verb.
func (*PolicyShowCmd) Help() string {
	return `Examples:

  gprov policy show policy.json
  gprov policy show --json policy.json

A value with * is the policy's own, the others are defaults. 'gprov boot inspect' shows the same of an artifact.`
}

// Run prints each key of the policy.
func (p *PolicyShowCmd) Run(c *Context) error {
	pol, err := readPolicy(c, p.File)
	if err != nil {
		return err
	}
	if p.JSON {
		return answer.JSON(c.Stdout, map[string]any{"keys": pol.Show()})
	}
	return printPolicy(c.Stdout, "", pol)
}

// loadPolicy reads a policy and what is wrong with it.
func loadPolicy(name string) (policy.Policy, []source.Problem, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return policy.Policy{}, nil, fmt.Errorf("read policy: %w", err)
	}
	p, ps := policy.Check(b)
	return p, ps, nil
}

// readPolicy reads a policy for whoever builds with it: problems are printed, and more than warnings are an error.
func readPolicy(c *Context, name string) (policy.Policy, error) {
	p, ps, err := loadPolicy(name)
	if err != nil {
		return policy.Policy{}, err
	}
	printProblems(c.Stderr, name, ps)
	if source.Join(ps) != nil {
		return policy.Policy{}, &HintError{fmt.Errorf("the policy %s is refused", name), "mend what is said above, or look at docs/formats/policy.md"}
	}
	return p, nil
}

// printPolicy writes a line for each key: the value that counts, a star if it is the policy's own, and what it means.
func printPolicy(w io.Writer, indent string, p policy.Policy) error {
	var out strings.Builder
	for _, s := range p.Show() {
		own := " "
		if s.Set {
			own = "*"
		}
		fmt.Fprintf(&out, "%s%s %-25s %s: %s\n", indent, own, s.Key, shown.Line(s.Value), shown.Line(s.Means))
	}
	_, err := io.WriteString(w, out.String())
	return err
}
