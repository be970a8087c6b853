# Alerts and the dashboard, from templates/monitoring/: plain JSON, which gcloud takes as well.

locals {
  monitoring = "${path.module}/../monitoring"
  metrics    = { for file in fileset(local.monitoring, "metric_*.json") : trimsuffix(file, ".json") => jsondecode(templatefile("${local.monitoring}/${file}", { name = var.name })) }
  alerts     = { for file in fileset(local.monitoring, "alert_*.json") : trimsuffix(file, ".json") => jsondecode(templatefile("${local.monitoring}/${file}", { name = var.name })) }
}

resource "google_monitoring_alert_policy" "this" {
  for_each              = local.alerts
  display_name          = each.value.displayName
  combiner              = each.value.combiner
  notification_channels = var.notification_channels
  documentation {
    content   = each.value.documentation.content
    mime_type = each.value.documentation.mimeType
  }
  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.value.displayName
      dynamic "condition_threshold" {
        for_each = try([conditions.value.conditionThreshold], [])
        content {
          filter             = condition_threshold.value.filter
          comparison         = condition_threshold.value.comparison
          threshold_value    = condition_threshold.value.thresholdValue
          duration           = condition_threshold.value.duration
          denominator_filter = try(condition_threshold.value.denominatorFilter, null)
          dynamic "denominator_aggregations" {
            for_each = try(condition_threshold.value.denominatorAggregations, [])
            content {
              alignment_period     = denominator_aggregations.value.alignmentPeriod
              per_series_aligner   = denominator_aggregations.value.perSeriesAligner
              cross_series_reducer = denominator_aggregations.value.crossSeriesReducer
            }
          }
          aggregations {
            alignment_period     = condition_threshold.value.aggregations[0].alignmentPeriod
            per_series_aligner   = condition_threshold.value.aggregations[0].perSeriesAligner
            cross_series_reducer = try(condition_threshold.value.aggregations[0].crossSeriesReducer, null)
            group_by_fields      = try(condition_threshold.value.aggregations[0].groupByFields, null)
          }
        }
      }
      dynamic "condition_prometheus_query_language" {
        for_each = try([conditions.value.conditionPrometheusQueryLanguage], [])
        content {
          query               = condition_prometheus_query_language.value.query
          duration            = condition_prometheus_query_language.value.duration
          evaluation_interval = condition_prometheus_query_language.value.evaluationInterval
        }
      }
    }
  }
  # An alert on a metric that is not there yet is refused.
  depends_on = [google_project_service.needed, google_logging_metric.this]
}

# Counted from the log: Dataflow has no metric of its own for it.
resource "google_logging_metric" "this" {
  for_each    = local.metrics
  name        = each.value.name
  description = each.value.description
  filter      = each.value.filter
  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }
  depends_on = [google_project_service.needed]
}

resource "google_monitoring_dashboard" "this" {
  dashboard_json = templatefile("${local.monitoring}/dashboard.json", { name = var.name })
  depends_on     = [google_project_service.needed, google_logging_metric.this]
}
