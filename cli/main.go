package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"gprovision/model/fault"
	"gprovision/site"
)

// Commands are the verbs of gprov.
type Commands struct {
	Image    ImageCmd    `cmd:"" help:"Build, check, inspect, extract and sign release images."`
	Keys     KeysCmd     `cmd:"" help:"Make signing keys."`
	Boot     BootCmd     `cmd:"" help:"Build and inspect boot artifacts."`
	Manifest ManifestCmd `cmd:"" help:"Make and check manifests."`
	Platform PlatformCmd `cmd:"" help:"Check appliance tables, identify and capture machines."`
	Serve    ServeCmd    `cmd:"" help:"Run the factory server."`
	Vault    VaultCmd    `cmd:"" help:"Read the credentials of units with the operator's key."`
	VM       VMCmd       `cmd:"" name:"vm" help:"Run a virtual unit."`
	Demo     DemoCmd     `cmd:"" help:"Show the whole life of a unit on a virtual machine."`

	Version kong.VersionFlag `help:"Print the build's revision and exit."`
}

// Main parses args, runs the verb and returns the exit status: 0 it holds or was done, 1 it does not hold or could not be
// done, 2 wrong usage. SIGINT and SIGTERM cancel the verb's context.
func Main(args []string, stdout, stderr io.Writer, s site.Site, version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &Context{Context: ctx, Stdout: stdout, Stderr: stderr, Terminal: isTerminal(stdout), Site: s, Version: version}
	return run(c, args)
}

// exit is how kong's own help and version flags end the parse without ending the process.
type exit struct{ code int }

func run(c *Context, args []string) (code int) {
	defer func() {
		if v := recover(); v != nil {
			e, ok := v.(exit)
			if !ok {
				panic(v)
			}
			code = e.code
		}
	}()
	var commands Commands
	k, err := kong.New(&commands,
		kong.Name("gprov"),
		kong.Description("Turn bare machines into appliances, and keep them recoverable for life."),
		kong.Writers(c.Stdout, c.Stderr),
		kong.Exit(func(code int) { panic(exit{code}) }),
		kong.Vars{"version": "gprov " + c.Version},
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		panic(err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	verb, err := k.Parse(args)
	if err != nil {
		fmt.Fprintf(c.Stderr, "gprov: %v\nhint: gprov --help\n", err)
		return 2
	}
	if err := verb.Run(c); err != nil {
		return report(c.Stderr, err)
	}
	return 0
}

// report prints err with its hint, and returns the exit status that belongs to it.
func report(w io.Writer, err error) int {
	fmt.Fprintf(w, "gprov: %v\n", err)
	var h *HintError
	if errors.As(err, &h) {
		fmt.Fprintf(w, "hint: %s\n", h.Hint)
	} else if f := fault.Of(err); f != nil {
		fmt.Fprintf(w, "hint: %s\n", f.Hint)
	}
	var u *UsageError
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
