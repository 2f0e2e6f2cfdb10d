{{- define "dreambooth.prometheusConfig" -}}
{{- $operator := printf "%s:9401" (include "dreambooth.host" (list . "operator")) -}}
global:
  scrape_interval: {{ .Values.prometheus.scrapeInterval }}
  scrape_timeout: {{ .Values.prometheus.scrapeTimeout }}
  evaluation_interval: {{ .Values.prometheus.scrapeInterval }}
rule_files: [/etc/prometheus/alerts.yaml]
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: [localhost:9090]
  - job_name: dreambooth-operator
    dns_sd_configs:
      - names: [{{ include "dreambooth.host" (list . "operator-replicas") }}]
        type: A
        port: 9401
  {{- if .Values.gateway.enabled }}
  - job_name: dreambooth-gateway
    dns_sd_configs:
      - names: [{{ include "dreambooth.host" (list . "gateway-replicas") }}]
        type: A
        port: 9403
        refresh_interval: {{ .Values.prometheus.scrapeInterval }}
  {{- end }}
  # Trainer and server pods, as the operator lists them: Prometheus needs no access to the API server.
  - job_name: dreambooth-pods
    http_sd_configs:
      - url: http://{{ $operator }}/targets
        refresh_interval: {{ .Values.prometheus.scrapeInterval }}
  {{- with .Values.prometheus.extraScrapeConfigs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
