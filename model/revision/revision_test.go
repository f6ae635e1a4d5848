package revision

import (
	"runtime/debug"
	"testing"
)

func TestFromBuildInfo(t *testing.T) {
	git := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}, {Key: "vcs.modified", Value: modified}}
	}
	for want, info := range map[string]debug.BuildInfo{
		"0123456789ab":       {Main: debug.Module{Version: "v0.0.0-20261129-0123456789ab"}, Settings: git("false")},
		"0123456789ab-dirty": {Main: debug.Module{Version: "(devel)"}, Settings: git("true")},
		"v1.2.3":             {Main: debug.Module{Version: "v1.2.3"}},
		Unknown:              {Main: debug.Module{Version: "(devel)"}},
	} {
		if got := FromBuildInfo(&info); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Of("0.2.0"); got != "0.2.0" {
		t.Errorf("the linker's word is lost: %q", got)
	}
	for _, none := range []string{"", Unknown} {
		if got := Of(none); got == "" {
			t.Errorf("%q gives nothing", none)
		}
	}
}
