// prometheus-adapter's external metrics and nothing else, of its own packages: its own main wants the libraries of
// Kubernetes 1.30, and with those of this module most of it is compiled already.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"
	basecmd "sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/prometheus-adapter/pkg/client"
	"sigs.k8s.io/prometheus-adapter/pkg/config"
	external "sigs.k8s.io/prometheus-adapter/pkg/external-provider"
	"sigs.k8s.io/prometheus-adapter/pkg/naming"
)

// The flags of the original, by its names.
type adapter struct {
	basecmd.AdapterBase
	prometheus, config string
	relist, maxAge     time.Duration
}

func (a *adapter) parse(arguments []string) error {
	a.Name = "prometheus-adapter"
	flags := a.Flags()
	flags.StringVar(&a.prometheus, "prometheus-url", "http://localhost:9090", "where Prometheus is")
	flags.StringVar(&a.config, "config", "", "file of rules")
	flags.DurationVar(&a.relist, "metrics-relist-interval", 10*time.Minute, "how often series are looked for")
	flags.DurationVar(&a.maxAge, "metrics-max-age", 10*time.Minute, "how long a series counts after its last sample")
	return flags.Parse(arguments)
}

func (a *adapter) provide(stop <-chan struct{}) error {
	rules, err := config.FromFile(a.config)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	address, err := url.Parse(a.prometheus)
	if err != nil {
		return fmt.Errorf("--prometheus-url: %w", err)
	}
	mapper, err := a.RESTMapper()
	if err != nil {
		return err
	}
	namers, err := naming.NamersFromConfig(rules.ExternalRules, mapper)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	asked := patient{client.NewGenericAPIClient(http.DefaultClient, address, http.Header{})}
	provider, lister := external.NewExternalPrometheusProvider(
		client.NewClientForAPI(asked, http.MethodGet), namers, a.relist, a.maxAge)
	lister.RunUntil(stop)
	a.WithExternalMetrics(provider)
	return nil
}

// Takes out the time that Prometheus is given: the package counts from the deadline back, and a negative duration, which
// libraries of its time did not write, Prometheus refuses. The request's own context ends it anyway.
type patient struct{ client.GenericAPIClient }

func (p patient) Do(ctx context.Context, verb, endpoint string, query url.Values) (client.APIResponse, error) {
	query.Del("timeout")
	return p.GenericAPIClient.Do(ctx, verb, endpoint, query)
}

func main() {
	logs.InitLogs()
	defer logs.FlushLogs()
	served, ctx := &adapter{}, genericapiserver.SetupSignalContext()
	if err := served.parse(os.Args[1:]); err != nil {
		klog.Fatal(err)
	}
	if err := served.provide(ctx.Done()); err != nil {
		klog.Fatal(err)
	}
	if err := served.Run(ctx); err != nil {
		klog.Fatal(err)
	}
}
